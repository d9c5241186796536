"""Processes on one machine join, agree, fail together, and say what is wrong when they cannot."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from flax_distil.core.errors import InputError
from flax_distil.parallel.config import ProcessConfig
from flax_distil.parallel.processes import all_gather_object, initialize_distributed, raise_on_all_hosts

pytestmark = pytest.mark.integration

DEVICES = 4
ADDRESS = "127.0.0.1:12345"


@dataclass(frozen=True, kw_only=True)
class Ended:
    status: int
    out: str
    error: str


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def start(task: str, settings: dict, environment: dict[str, str] | None = None) -> subprocess.Popen:
    script = Path(__file__).with_name("on_processes.py")
    return subprocess.Popen(
        [sys.executable, "-W", "error", script, task, json.dumps(settings)],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}",
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_given(
    task: str, address: str, *, count: int, numbers: list[int], timeout: int
) -> list[subprocess.Popen]:
    """Start processes that are told all there is to know."""
    given = {
        "coordinator_address": address,
        "num_processes": count,
        "initialization_timeout_seconds": timeout,
    }
    return [start(task, {**given, "process_id": number}) for number in numbers]


def start_in_slurm(task: str, *, count: int, numbers: list[int], timeout: int) -> list[subprocess.Popen]:
    """Start processes that are told nothing, with the variables of Slurm."""
    job = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(count),
        "JAX_COORDINATOR_PORT": free_address().split(":")[1],
    }
    return [
        start(
            task,
            {"initialization_timeout_seconds": timeout},
            {**job, "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)},
        )
        for number in numbers
    ]


@pytest.fixture(scope="module")
def ended():
    """How each process of every run ended; the runs go on side by side, as most of them only wait."""
    runs = {
        "incomplete": start_given("wait", free_address(), count=3, numbers=[0, 1], timeout=2),
        "alone": start_given("wait", free_address(), count=2, numbers=[1], timeout=1),
        "alone in slurm": start_in_slurm("wait", count=2, numbers=[1], timeout=1),
        "unknown host": start_given("wait", "no-such-host.invalid:1234", count=2, numbers=[1], timeout=1),
        "agree": start_given("agree", free_address(), count=3, numbers=[0, 1, 2], timeout=60),
        "be_stopped": start_in_slurm("be_stopped", count=2, numbers=[0, 1], timeout=60),
    }
    try:
        results = {}
        for name, processes in runs.items():
            outputs = [process.communicate(timeout=120) for process in processes]
            results[name] = [
                Ended(status=process.returncode, out=out, error=error)
                for process, (out, error) in zip(processes, outputs, strict=True)
            ]
        yield results
    finally:
        for processes in runs.values():
            for process in processes:
                process.kill()


@pytest.fixture(scope="module")
def found(ended):
    """What each of three processes that agree found."""
    for process in ended["agree"]:
        assert process.status == 0, process.error
    return [json.loads(process.out.splitlines()[-1]) for process in ended["agree"]]


@pytest.fixture
def no_launcher(monkeypatch):
    """A machine where nothing says that there are other processes."""
    for name in list(os.environ):
        if name.startswith(("JAX_COORDINATOR", "JAX_NUM_PROC", "JAX_PROCESS", "SLURM_", "OMPI_", "TPU_")):
            monkeypatch.delenv(name)


def test_processes_that_joined_see_all_devices(found):
    assert [process["devices"] for process in found] == [[3 * DEVICES, DEVICES]] * 3


def test_values_of_any_size_are_gathered_in_order_of_processes(found):
    wanted = [[0, 1, 2], [{"text": "ß" * size} for size in (1, 10, 100)], [None] * 3]
    assert [process["gathered"] for process in found] == [wanted] * 3


def test_what_fails_on_one_process_fails_on_all_and_names_it(found):
    assert [process["succeeded"] for process in found] == ["returned 0", "returned 1", "returned 2"]
    elsewhere = "InputError: process 1 of 3: the disk is full"
    assert [process["bad_input"] for process in found] == [
        elsewhere,
        "InputError: the disk is full",
        elsewhere,
    ]
    elsewhere = "RuntimeError: process 2 of 3: the disk is full"
    assert [process["broken"] for process in found] == [elsewhere, elsewhere, "OSError: the disk is full"]


def test_a_folder_that_only_process_0_writes_to_is_refused_on_all(found):
    assert [process["shared"] for process in found] == ["returned None"] * 3
    for process in found:
        assert "is not the folder that process 0 writes to: name one that all" in process["own_folders"]


def test_processes_with_different_settings_are_refused_on_all(found):
    assert [process["same"] for process in found] == ["returned None"] * 3
    refused = [process["other_seed"] for process in found]
    remedy = "start all with the same flags and data"
    assert refused[0] == f"InputError: process 1 has seed 1, and process 0 has 2: {remedy}"
    assert refused[1:] == [
        f"InputError: process 0 has seed 2, and process {n} has 1: {remedy}" for n in (1, 2)
    ]


def test_joining_twice_is_refused(found):
    assert all("InputError: this process has already joined" in process["joined_again"] for process in found)


def test_a_coordinator_that_nobody_reaches_is_named(ended):
    for name, address in {"alone": "127.0.0.1:", "unknown host": "no-such-host.invalid:1234"}.items():
        (process,) = ended[name]
        assert process.status == 2, process.error
        assert f"error: process 1 of 2 found nobody at coordinator_address {address}" in process.error
        assert "within 1 s: start process 0 on that host" in process.error


def test_every_process_says_that_one_is_missing(ended):
    for number, process in enumerate(ended["incomplete"]):
        assert process.status == 2, process.error
        assert f"error: process {number} of 3 waited 2 s at 127.0.0.1:" in process.error
        assert "but not all came" in process.error


def test_processes_of_a_cluster_find_each_other_without_settings(ended):
    for process in ended["be_stopped"]:
        assert process.out.splitlines()[-1] == "[0, 1]", process.error
    (process,) = ended["alone in slurm"]
    assert process.status == 2, process.error
    assert "error: not all processes of this cluster came within 1 s: start one" in process.error
    assert "or set num_processes to 1 to run without the others" in process.error


def test_sigterm_still_ends_a_process(ended):
    for process in ended["be_stopped"]:
        assert process.status == -15, process.error
        assert "still here" not in process.out


def test_a_single_machine_needs_no_settings(no_launcher):
    initialize_distributed(ProcessConfig())
    initialize_distributed(ProcessConfig(num_processes=1))
    value = {"kept": object()}
    assert all_gather_object(value)[0] is value
    assert raise_on_all_hosts(lambda: value) is value
    with pytest.raises(InputError, match="as it is"):
        raise_on_all_hosts(lambda: (_ for _ in ()).throw(InputError("as it is")))


@pytest.mark.parametrize(
    "launcher",
    [
        {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "n", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "1"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
    ],
)
def test_a_launcher_of_one_process_is_no_cluster(no_launcher, monkeypatch, launcher):
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    initialize_distributed(ProcessConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_processes": 2}, "coordinator_address and process_id must be given too"),
        ({"coordinator_address": ADDRESS}, "num_processes and process_id must be given too"),
        ({"coordinator_address": ADDRESS, "num_processes": 2}, "process_id must be given too"),
        ({"coordinator_address": ADDRESS, "num_processes": 2, "process_id": 2}, "between 0 and 1 .* got 2"),
        ({"coordinator_address": ADDRESS, "num_processes": 2, "process_id": -1}, "between 0 and 1 .* got -1"),
        ({"num_processes": 0}, "num_processes must be at least 1, got 0"),
        ({"coordinator_address": "host", "num_processes": 2, "process_id": 0}, "host:port.* got 'host'"),
        ({"coordinator_address": "host:0", "num_processes": 2, "process_id": 0}, "got 'host:0'"),
        ({"initialization_timeout_seconds": 0}, "initialization_timeout_seconds must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(no_launcher, settings, message):
    with pytest.raises(InputError, match=message):
        initialize_distributed(ProcessConfig(**settings))


def test_what_is_not_given_comes_from_the_environment(no_launcher, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "7")
    with pytest.raises(InputError, match=r"between 0 and 1 .* got 7"):
        initialize_distributed(ProcessConfig())
    initialize_distributed(ProcessConfig(num_processes=1, process_id=0))  # flags win
    monkeypatch.setenv("JAX_PROCESS_ID", "first")
    with pytest.raises(InputError, match="JAX_PROCESS_ID must be a whole number, got 'first'"):
        initialize_distributed(ProcessConfig())


def test_a_port_in_use_is_refused_before_jax_crashes_on_it(no_launcher):
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        config = ProcessConfig(coordinator_address=f"127.0.0.1:{port}", num_processes=2, process_id=0)
        with pytest.raises(InputError, match=f"cannot listen on port {port} of coordinator_address .Address"):
            initialize_distributed(config)
