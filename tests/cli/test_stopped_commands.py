"""Commands that are stopped by a signal end with 75, and the same command goes on to the same results."""

import signal
from pathlib import Path

import pytest

from flax_distil.cli.main import main
from flax_distil.core.signals import STOPPED
from flax_distil.pipeline.writers.transcript_output import RECORD_NAME, TranscriptFolder
from flax_distil.storage.resumable_output import LineWriter
from tests.distillation.test_stopped_runs import stop_at
from tests.toys import write_prompts


@pytest.fixture(scope="module")
def prompts(tmp_path_factory, prompts_dir) -> Path:
    return write_prompts(tmp_path_factory.mktemp("prompts"), prompts_dir)


def files(folder: Path, *without: str) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in without]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def run_stopped(arguments: list[str], folder: Path, owner: type, name: str, *, call: int) -> None:
    """Run a command that is stopped, and then the same command."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, owner, name, signal.SIGTERM, call=call)
        assert main([*arguments, f"--output_dir={folder}"]) == STOPPED
    assert main([*arguments, f"--output_dir={folder}"]) == 0


@pytest.mark.slow
def test_pseudo_labeling_goes_on(prompts, teacher, tmp_path, capsys):
    arguments = [
        "pseudo-label", f"--model={teacher}", f"--dataset_name={prompts}", "--generation_max_length=4",
        "--samples_per_shard=3", "--per_device_eval_batch_size=1",
    ]  # fmt: skip
    assert main([*arguments, f"--output_dir={tmp_path / 'whole'}"]) == 0
    run_stopped(arguments, tmp_path / "stopped", LineWriter, "write", call=2)
    assert files(tmp_path / "stopped", "throughput.json") == files(tmp_path / "whole", "throughput.json")
    error = capsys.readouterr().err
    assert "stopped by SIGTERM: what is finished is kept, and the same command goes on" in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_an_evaluation_goes_on(prompts, teacher, tmp_path):
    arguments = [
        "eval", f"--model={teacher}", f"--dataset_name={prompts}", "--generation_max_length=4",
        "--per_device_eval_batch_size=1", "--latency_samples=0",
    ]  # fmt: skip
    assert main([*arguments, f"--output_dir={tmp_path / 'whole'}"]) == 0
    run_stopped(arguments, tmp_path / "stopped", LineWriter, "write", call=4)
    assert (tmp_path / "stopped/predictions.csv").read_text() == (
        tmp_path / "whole/predictions.csv"
    ).read_text()


@pytest.mark.slow
def test_transcribing_goes_on_behind_what_is_written(teacher, prompts_dir, tmp_path):
    arguments = [
        "transcribe", *map(str, sorted((prompts_dir / "validation").glob("*.ogg"))[:4]), f"--model={teacher}",
        "--per_device_eval_batch_size=1", "--output_format=all",
    ]  # fmt: skip
    folder = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, TranscriptFolder, "write", signal.SIGTERM, call=3)
        assert main([*arguments, f"--output_dir={folder}"]) == STOPPED
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.txt")}
    assert len(before) in (2, 3)
    assert main([*arguments, f"--output_dir={folder}"]) == 0
    assert len(list(folder.glob("*.json"))) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert main([*arguments, f"--output_dir={folder}"]) == 2  # its work is done: as without a stop
    assert (folder / RECORD_NAME).is_file()
