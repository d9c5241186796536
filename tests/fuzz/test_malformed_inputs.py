"""Malformed inputs of every kind, read as the commands read them: one sentence each, or what they hold."""

import functools
import shutil
from pathlib import Path

import pytest

from flax_distil import FlaxWhisperPipeline
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.cli.main import COMMANDS, config_class, main
from flax_distil.core.nested import leaves
from tests.audio.malformed_audio import malformed_audio
from tests.checkpoints.malformed_checkpoints import malformed_checkpoints
from tests.checkpoints.toy_folder import toy_files, write_files
from tests.cli.malformed_flags import malformed_flags
from tests.fuzz.attempts import Attempts

NEEDED = {
    "model_name_or_path": "--model_name_or_path=m",
    "teacher_model_name_or_path": "--teacher_model_name_or_path=t",
    "dataset_name": "--dataset_name=d",
    "train_dataset_name": "--train_dataset_name=d",
    "output_dir": "--output_dir=o",
    "topology": "--topology=v4-8",
    "files": "a.wav",
}
"""The flags without which a command does nothing."""


def checkpoint_commands(folder: Path, output: Path) -> list[list[str]]:
    """Every command that reads a checkpoint, each with what is enough to get to it, and no data."""
    model, out, none = str(folder), str(output), str(output / "none.jsonl")
    return [
        ["export", "--model_name_or_path", model, "--output_dir", out],
        ["init-student", "--teacher_model_name_or_path", model, "--output_dir", out, "--decoder_layers", "1"],
        ["transcribe", none, "--model", model, "--output_dir", out],
        ["eval", "--model_name_or_path", model, "--dataset_name", none, "--output_dir", out],
        ["align-heads", "--model", model, "--teacher", model, "--dataset_name", none],
    ]


def read_checkpoints(attempts: Attempts, seed: int, count: int, scratch: Path, *, every: int) -> None:
    """Open each checkpoint in Python; one in so many in a command too."""
    for index, (name, files) in enumerate(malformed_checkpoints(seed, count)):
        kind = f"checkpoint: {name.rsplit('-', 2)[0]}"
        folder, output = write_files(scratch / "model", files), scratch / "output"
        attempts.read(kind, name, functools.partial(FlaxWhisperPipeline, str(folder)))
        if index % every == 0:
            line = checkpoint_commands(folder, output)[index // every % 5]
            run = functools.partial(main, line)
            done = attempts.run(f"checkpoint by {line[0]}", f"{name} by {line[0]}", run, statuses=(0, 1, 2))
            if done and line[0] == "export":
                attempts.read("checkpoint exported", name, functools.partial(load_checkpoint, output))
        for path in (folder, output):
            shutil.rmtree(path, ignore_errors=True)


def read_audio(attempts: Attempts, seed: int, count: int, scratch: Path) -> None:
    for name, contents in malformed_audio(seed, count):
        path = scratch / name
        path.write_bytes(contents)
        attempts.read("audio", name, functools.partial(decode_audio, path))
        path.unlink()


def read_flags(
    attempts: Attempts, seed: int, count: int, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give flags to each command in turn, whose work is nothing here."""
    monkeypatch.chdir(scratch)
    for index, (command, (_, function)) in enumerate(COMMANDS.items()):
        flags = [leaf.name for leaf in leaves(config_class(command))]
        needed = [NEEDED[name] for name in flags if name in NEEDED]
        monkeypatch.setattr(f"flax_distil.{function.replace(':', '.')}", lambda config: None)
        names = [name for name in flags if name != "files"]
        for case in malformed_flags(seed + index, count // len(COMMANDS), names, needed):
            file = scratch / f"flags{case.suffix}"
            file.write_bytes(case.file or b"")
            arguments = [argument.replace("{file}", str(file)) for argument in case.arguments]
            run = functools.partial(main, [*command.split(), *arguments])
            attempts.run(f"flags of {command}", f"{command} {case.name}", run)


def test_malformed_checkpoints_are_refused_in_one_sentence_or_read(attempts, tmp_path):
    read_checkpoints(attempts, 0, 60, tmp_path, every=5)
    attempts.check()


def test_malformed_recordings_are_refused_in_one_sentence_or_read(attempts, tmp_path):
    read_audio(attempts, 10, 80, tmp_path)
    attempts.check()


def test_malformed_flags_are_refused_in_one_sentence_or_read(attempts, tmp_path, monkeypatch):
    read_flags(attempts, 20, 36, tmp_path, monkeypatch)
    attempts.check()


@pytest.mark.slow
def test_more_malformed_checkpoints_are_refused_in_one_sentence_or_read(attempts, tmp_path):
    read_checkpoints(attempts, 1, 800, tmp_path, every=1)
    attempts.check()


@pytest.mark.slow
def test_more_malformed_recordings_are_refused_in_one_sentence_or_read(attempts, tmp_path):
    read_audio(attempts, 11, 400, tmp_path)
    attempts.check()


@pytest.mark.slow
def test_more_malformed_flags_are_refused_in_one_sentence_or_read(attempts, tmp_path, monkeypatch):
    read_flags(attempts, 21, 450, tmp_path, monkeypatch)
    attempts.check()


@pytest.mark.slow
def test_malformed_recordings_are_transcribed_or_named_by_the_command(attempts, tmp_path):
    model = write_files(tmp_path / "model", toy_files())
    output = tmp_path / "output"
    cases = list(malformed_audio(12, 96))
    for start in range(0, len(cases), 12):
        folder = write_files(tmp_path / "sounds", dict(cases[start : start + 12]))
        paths = [str(path) for path in sorted(folder.iterdir())]
        flags = ["--model", str(model), "--language", "en", "--output_dir", str(output)]
        run = functools.partial(main, ["transcribe", *paths, *flags])
        name = f"files {start} to {start + 11}"  # in these seconds the first call compiles
        attempts.run("recordings by transcribe", name, run, statuses=(0, 1), seconds=90)
        for path in (folder, output):
            shutil.rmtree(path, ignore_errors=True)
    attempts.check()
