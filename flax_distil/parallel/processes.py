"""Run several processes as one program: find each other, exchange objects, and fail together.

A program over the devices of several processes runs only while all of them take part, and a process that
stops alone leaves the others waiting. So everything that may fail on one process runs in
:func:`raise_on_all_hosts`, which makes it fail on all.
"""

import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import jax
import numpy as np
from jax._src import distributed as jax_distributed  # its key-value store has no public name
from jax.experimental.multihost_utils import process_allgather

from flax_distil.core.errors import InputError
from flax_distil.parallel.config import ProcessConfig
from flax_distil.parallel.peers import JAX_LATER_SECONDS, explained_aborts, watch_peers

T = TypeVar("T")

_GRACE_SECONDS = 5
"""Additional time that process 0 waits, because JAX aborts the waiting processes when process 0 gives up."""


def initialize_distributed(config: ProcessConfig) -> None:
    """Join the other processes of the job; call this before anything asks JAX for a device.

    Afterwards ``jax.devices()`` lists the devices of all processes. With a single process nothing happens.

    Raises:
        InputError: If the settings are incomplete or contradict each other, a process is missing when the
            time is over, or this process has joined already. The caller should end then, because JAX stays
            half connected.
    """
    if jax.distributed.is_initialized():
        raise InputError("this process has already joined the others: join once, when it starts")
    config = _with_environment(config)
    _check(config)
    if config.num_processes == 1 or (config.num_processes is None and _launched_alone()):
        return
    # The preemption service of JAX would take SIGTERM from Python, see preemption.py.
    jax.config.update("jax_enable_preemption_service", False)
    if config.coordinator_address is None:
        _join_detected(config)
    else:
        _join_given(config, config.coordinator_address)
    joined = jax_distributed.global_state
    if joined.client is not None and joined.num_processes > 1:
        watch_peers(
            joined.client,
            number=joined.process_id,
            count=joined.num_processes,
            timeout=config.heartbeat_timeout_seconds,
        )


def all_gather_object(value: T) -> list[T]:
    """Return the values of all processes, in order of processes; all processes must call this.

    Args:
        value: Value that JSON can hold; sizes may differ. Tuples arrive as lists, on this process too. Every
            device holds the values of all processes for a moment. With one process the value is returned as
            it is.

    Raises:
        TypeError: If JSON cannot hold the value.
    """
    if _is_alone():
        return [value]
    payload = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = process_allgather(np.int32(len(payload)))
    # Sizes are rounded up to powers of two, so that few programs are compiled.
    padded = np.zeros(1 << int(lengths.max() - 1).bit_length(), np.uint8)
    padded[: len(payload)] = payload
    gathered = process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(gathered, lengths, strict=True)]


def raise_on_all_hosts(function: Callable[[], T]) -> T:
    """Call a function on every process, and fail on all processes if it fails on one.

    Use it for work that depends on one host: its files, its disk, its flags. The function must not compute
        together with other processes. With one process it is simply called.

    Returns:
        The result of this process.

    Raises:
        Exception: The exception of the function, on a process where it failed.
        InputError: On other processes, if the function failed with an ``InputError``; the message names the
            first such process.
        RuntimeError: On other processes, if the function failed with another exception.
    """
    if _is_alone():
        return function()
    try:
        result = function()
    except Exception as error:
        all_gather_object([isinstance(error, InputError), str(error) or repr(error)])
        raise
    failures = all_gather_object(None)
    for number, failure in enumerate(failures):
        if failure is not None:
            mendable, message = failure
            message = f"process {number} of {len(failures)}: {message}"
            raise InputError(message) if mendable else RuntimeError(message)
    return result


def _is_alone() -> bool:
    # The first test avoids starting the devices of a single process before its input is checked.
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def _with_environment(config: ProcessConfig) -> ProcessConfig:
    """Fill absent settings from the environment variables of the same names."""
    address = config.coordinator_address or os.environ.get("JAX_COORDINATOR_ADDRESS") or None
    numbers = {}
    for name in ("num_processes", "process_id"):
        value, variable = getattr(config, name), f"JAX_{name.upper()}"
        given = os.environ.get(variable)
        if value is None and given:
            if not given.isdecimal():
                raise InputError(f"{variable} must be a whole number, got {given!r}")
            value = int(given)
        numbers[name] = value
    return replace(config, coordinator_address=address, **numbers)


def _check(config: ProcessConfig) -> None:
    address, count, number = config.coordinator_address, config.num_processes, config.process_id
    for name in ("initialization_timeout_seconds", "heartbeat_timeout_seconds"):
        if (seconds := getattr(config, name)) < 1:
            raise InputError(f"{name} must be at least 1, got {seconds}")
    if count is not None and count < 1:
        raise InputError(f"num_processes must be at least 1, got {count}")
    if number is not None and count is not None and not 0 <= number < count:
        raise InputError(
            f"process_id must lie between 0 and {count - 1} (num_processes is {count}), got {number}"
        )
    settings = {"coordinator_address": address, "num_processes": count, "process_id": number}
    missing = [name for name, value in settings.items() if value is None]
    if count != 1 and 0 < len(missing) < len(settings):
        raise InputError(
            f"{' and '.join(missing)} must be given too: several processes need coordinator_address, "
            "num_processes and process_id, or none of them where a TPU pod, Slurm, Open MPI or Kubernetes "
            "starts them"
        )
    if address is not None:
        _split_address(address)


def _split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise InputError(
            f"coordinator_address must be host:port, such as 10.0.0.1:1234 (process 0's), got {address!r}"
        )
    return host.strip("[]"), int(port)


def _launched_alone() -> bool:
    """Return whether the variables of a launcher say that it started a single process.

    JAX would connect this process with itself, and then give it only one of the host's GPUs (Slurm, Open
    MPI), or wait for a host without a name (some hosted TPU notebooks).
    """
    if "OMPI_MCA_orte_hnp_uri" in os.environ:
        return os.environ.get("OMPI_COMM_WORLD_SIZE") == "1"
    if "SLURM_STEP_NODELIST" in os.environ:
        return os.environ.get("SLURM_NTASKS") == "1"
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    one_slice = os.environ.get("MEGASCALE_NUM_SLICES", "1") == "1"
    return hosts is not None and "," not in hosts and one_slice


def _join_given(config: ProcessConfig, address: str) -> None:
    host, port = _split_address(address)
    first = config.process_id == 0
    if first:
        _check_port_is_free(port)
    seconds = config.initialization_timeout_seconds
    if _initialize(config, patience=seconds + _GRACE_SECONDS * first):
        return
    who = f"process {config.process_id} of {config.num_processes}"
    if not first and not _answers(host, port):
        raise InputError(
            f"{who} found nobody at coordinator_address {address} within {seconds} s: start process 0 on "
            "that host, and let the others reach this port"
        )
    raise InputError(
        f"{who} waited {seconds} s at {address}, but not all came: start each process_id below num_processes "
        "once, all with the same address and num_processes"
    )


def _join_detected(config: ProcessConfig) -> None:
    remedy = "start one process on every host, or set num_processes to 1 to run without the others"
    try:
        joined = _initialize(config, patience=config.initialization_timeout_seconds)
    except Exception as error:
        # No cluster was detected, or JAX is already in use, as in a notebook, and cannot join any more.
        if any(text in str(error) for text in ("coordinator_address should be", "must be called before")):
            return
        raise InputError(f"JAX could not find the processes of this cluster ({error}): {remedy}") from error
    if not joined:
        raise InputError(
            "not all processes of this cluster came within "
            f"{config.initialization_timeout_seconds} s: {remedy}"
        )


def _initialize(config: ProcessConfig, *, patience: int) -> bool:
    """Initialize the distributed system of JAX, and return whether this ended in time.

    It runs in a thread, with a time limit for JAX that is never reached, because JAX aborts the process at
    its limit.
    """
    errors: list[Exception] = []

    def initialize() -> None:
        try:
            with explained_aborts():
                jax.distributed.initialize(
                    config.coordinator_address,
                    config.num_processes,
                    config.process_id,
                    initialization_timeout=patience + 60,
                    heartbeat_timeout_seconds=config.heartbeat_timeout_seconds + JAX_LATER_SECONDS,
                )
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(patience)
    if errors:
        raise errors[0]
    return not thread.is_alive()


def _check_port_is_free(port: int) -> None:
    # JAX crashes without a message if it cannot listen.
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise InputError(
            f"process 0 cannot listen on port {port} of coordinator_address ({error.strerror}): take another"
        ) from error


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True
