"""Malformed checkpoints, read as the commands read them: one sentence each, or a model."""

import functools
import shutil
from pathlib import Path

import pytest

from flax_distil import FlaxWhisperPipeline
from flax_distil.cli.main import main
from flax_distil.weights import load_checkpoint
from tests.fuzz.attempts import Attempts
from tests.weights.malformed_checkpoints import malformed_checkpoints
from tests.weights.toy_folder import write_files


@pytest.fixture
def attempts(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Attempts:
    return Attempts(capfd, monkeypatch)


def command_lines(folder: Path, output: Path) -> list[list[str]]:
    """Every command that reads a checkpoint, each with what is enough to get to it, and no data."""
    model, out, none = str(folder), str(output), str(output / "none.jsonl")
    return [
        ["export", "--model_name_or_path", model, "--output_dir", out],
        ["init-student", "--teacher_model_name_or_path", model, "--output_dir", out, "--decoder_layers", "1"],
        ["transcribe", none, "--model", model, "--output_dir", out],
        ["eval", "--model_name_or_path", model, "--dataset_name", none, "--output_dir", out],
        ["align-heads", "--model", model, "--teacher", model, "--dataset_name", none],
    ]


def read_all(attempts: Attempts, seed: int, count: int, scratch: Path, *, every: int) -> None:
    """Open each checkpoint in Python; one in so many in a command too."""
    for index, (name, files) in enumerate(malformed_checkpoints(seed, count)):
        kind = name.rsplit("-", 2)[0]
        folder, output = write_files(scratch / "model", files), scratch / "output"
        attempts.read(kind, name, functools.partial(FlaxWhisperPipeline, str(folder)))
        if index % every == 0:
            commands = command_lines(folder, output)
            line = commands[index // every % len(commands)]
            done = attempts.run(f"{kind} by {line[0]}", f"{name} by {line[0]}", functools.partial(main, line))
            if done and line[0] == "export":
                attempts.read("exported", f"{name} exported", functools.partial(load_checkpoint, output))
        for path in (folder, output):
            shutil.rmtree(path, ignore_errors=True)


def test_a_malformed_checkpoint_is_refused_in_one_sentence_or_read(attempts, tmp_path):
    read_all(attempts, 0, 84, tmp_path, every=5)
    attempts.check()


@pytest.mark.slow
def test_more_malformed_checkpoints_are_refused_in_one_sentence_or_read(attempts, tmp_path):
    read_all(attempts, 1, 1200, tmp_path, every=1)
    attempts.check()
