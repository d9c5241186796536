"""A real model on recordings of a Hub and of buckets: streamed, killed ten times, and in part."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flax_distil.core.nested import build
from flax_distil.evaluation.config import EvalConfig
from flax_distil.evaluation.job import run
from flax_distil.storage import transports
from flax_distil.storage.line_files import LineWriter
from tests.data.dataset_hub import running_hub
from tests.evaluation.test_job import contents, untimed
from tests.evaluation.test_streams import FILES, ROWS_PER_FILE, texts, write_files
from tests.storage.buckets import running_gs, running_s3

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_partitioner")]

ROOT = Path(__file__).parents[2]
KILLS = 10


@pytest.fixture(scope="module")
def hub_root(prompts_dir, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    write_files(root / "someone/prompts", prompts_dir, files=2 * FILES)
    return root


def command(endpoint: str, home: Path, **flags) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, ROOT / "run_eval.py", *(f"--{name}={value}" for name, value in flags.items())],
        env={
            **os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
        },
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def transcribed(folder: Path) -> int:
    """Return the number of recordings that have a line."""
    lines = (line for path in folder.rglob("*.jsonl") for line in path.read_text().splitlines())
    return len({line.partition(', "id"')[0] for line in lines if line.startswith('{"prediction"')})


def test_an_evaluation_from_the_hub_that_is_killed_ten_times_writes_the_bytes_of_one_that_was_not(
    hub_root, tiny_en_dir, tmp_path
):
    sent: list[tuple[str, int]] = []
    size = sum(path.stat().st_size for path in hub_root.rglob("*.parquet"))
    killed, home, rows = tmp_path / "killed", tmp_path / "home", 2 * FILES * ROWS_PER_FILE
    flags = {"model": tiny_en_dir, "per_device_eval_batch_size": 1, "generation_max_length": 64}
    with running_hub(hub_root, sent) as endpoint:
        streamed = {**flags, "dataset_name": "someone/prompts", "streaming": True, "output_dir": killed}
        for number in range(KILLS):
            running = command(endpoint, home, **streamed)
            while transcribed(killed) < (rows - 2) * (number + 1) // KILLS - 1:
                assert running.poll() is None, running.communicate()[1]
                time.sleep(0.01)
            if number == 0:  # some recordings were transcribed, and others were not read
                assert sum(count for _, count in sent) < size / 2
            running.send_signal(signal.SIGKILL)
            assert running.wait() == -signal.SIGKILL
            running.communicate()
        sent.clear()
        finish(command(endpoint, home, **streamed))
        # The columns, and the part at whose end the last kill came.
        assert sum(count for _, count in sent) < size / 2
        finish(command(endpoint, home, **{**streamed, "output_dir": tmp_path / "whole"}))
        sent.clear()
        finish(command(endpoint, home, **{**streamed, "output_dir": tmp_path / "few", "max_samples": 2}))
        few = [(path, count) for path, count in sent if count > 1]
    local = {**flags, "dataset_name": hub_root / "someone/prompts", "output_dir": tmp_path / "local"}
    finish(command("http://127.0.0.1:9", home, **local))
    assert {path for path, _ in few if path.endswith(".parquet")} == {"test-00000.parquet"}
    assert len(contents(tmp_path / "few")["predictions.csv"].splitlines()) == 3
    found = [untimed(json.loads(contents(tmp_path / name)["results.json"])) for name in ("killed", "whole")]
    assert found[0] == found[1]
    assert contents(killed)["predictions.csv"] == contents(tmp_path / "whole")["predictions.csv"]
    assert texts(killed) == texts(tmp_path / "local")
    kept = [path for path in home.rglob("*") if path.is_file() and "datasets" in path.parts]
    assert not [path for path in kept if path.stat().st_size > 100_000 and "someone" in str(path)]


@pytest.mark.parametrize(("scheme", "running"), [("s3", running_s3), ("gs", running_gs)])
def test_a_set_in_a_bucket_is_transcribed_while_it_is_read(
    scheme, running, teacher, hub_root, tmp_path, monkeypatch
):
    read, at_first = [], []
    fetch, write = transports.FileSystemTransport.fetch, LineWriter.write

    def noting_fetch(self, start, end, **options):
        part = fetch(self, start, end, **options)
        read.append((self.url.rpartition("/")[2], len(part.data)))
        return part

    def noting_write(writer, *given):
        if any(line.startswith('{"prediction"') for line in given) and not at_first:
            at_first.extend(read)
        write(writer, *given)

    monkeypatch.setattr(transports.FileSystemTransport, "fetch", noting_fetch)
    monkeypatch.setattr(LineWriter, "write", noting_write)
    settings = {
        "model_name_or_path": str(teacher), "per_device_eval_batch_size": 1, "generation_max_length": 4,
        "max_samples": 14 * ROWS_PER_FILE,
    }  # fmt: skip
    with running(monkeypatch):
        transports.filesystem(scheme).put(f"{hub_root}/someone/prompts/", "bucket/prompts/", recursive=True)
        address = f"{scheme}://bucket/prompts/test-*.parquet"
        streamed = settings | {"dataset_name": address, "streaming": True, "output_dir": str(tmp_path / "s")}
        run(build(EvalConfig, **streamed))
    size = sum(path.stat().st_size for path in (hub_root / "someone/prompts").glob("*.parquet"))
    assert 0 < sum(count for _, count in at_first) < 0.6 * size
    assert {name for name, count in read if count > 1} == {f"test-{n:05d}.parquet" for n in range(14)}
    table = settings | {"dataset_name": str(hub_root / "someone/prompts"), "output_dir": str(tmp_path / "t")}
    run(build(EvalConfig, **table))
    assert texts(tmp_path / "s") == texts(tmp_path / "t")
