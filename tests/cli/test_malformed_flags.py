"""Flags and files that are wrong in any way are answered by one sentence, at once, in every command."""

import os
import time

import pytest

from flax_distil.cli.flags import read_flags
from flax_distil.cli.main import COMMANDS, config_class, main
from flax_distil.core.errors import InputError
from flax_distil.core.nested import leaves
from tests.cli.malformed_flags import LAUGHS, MERGES, malformed_flags

NEEDED = {
    "model_name_or_path": "--model_name_or_path=m",
    "teacher_model_name_or_path": "--teacher_model_name_or_path=t",
    "dataset_name": "--dataset_name=d",
    "train_dataset_name": "--train_dataset_name=d",
    "output_dir": "--output_dir=o",
    "topology": "--topology=v4-8",
    "files": "a.wav",
    "run_dir": "student",
}


def check(command, case, folder):
    """Read the flags of a command as it does; return the sentence, None if they are right."""
    file = folder / f"flags{case.suffix}"
    if case.file is not None:
        file.write_bytes(case.file)
    arguments = [argument.replace("{file}", str(file)) for argument in case.arguments]
    started = time.monotonic()
    try:
        read_flags(config_class(command), arguments, program=f"flax-distil {command}")
    except InputError as error:
        return str(error)
    finally:
        assert time.monotonic() - started < 10, case.name
    return None


def sentences(command, seed, count, folder):
    flags = [leaf.name for leaf in leaves(config_class(command))]
    names = [name for name in flags if name != "files"]
    needed = [NEEDED[name] for name in flags if name in NEEDED]
    for case in malformed_flags(seed, count, names, needed):
        sentence = check(command, case, folder)
        if sentence is not None:
            assert 10 < len(sentence) < 11_000, case.name
            assert "\n" not in sentence, case.name
            yield sentence


@pytest.mark.parametrize("command", COMMANDS)
def test_malformed_flags_of_every_command_are_one_sentence(command, tmp_path):
    assert len(list(sentences(command, 1, 12, tmp_path))) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_many_malformed_flags_of_every_command_are_one_sentence(command, tmp_path):
    assert len(list(sentences(command, 2, 120, tmp_path))) >= 60


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (b"null", "it holds nothing, not flags"),
        (b"[1]", "it holds a list, not flags"),
        (b"\xff\xfe", "it is not UTF-8 at byte 0"),
        (b"seed: " + b"[" * 30_000, "nested too deeply"),
        (LAUGHS.encode(), "alias *a in line 2 is not accepted"),
        (MERGES.encode(), "alias *a in line 2 is not accepted"),
        (b"seed: 1\nseed: 2", "'seed' is given twice"),
        (b"seed: " + b"9" * 400, "seed 9999"),
        (b"seed: {a: [1]}", "--seed cannot be \"{'a': [1]}\": expected a whole number"),
        (b"x" * (1 << 21), "it is longer than 1048576 bytes"),
        (b'prompt: "a\\0b"', "prompt 'a\\x00b' holds a NUL character"),
        (b"seed: '", "it is not YAML: found unexpected end of stream in line 1"),
    ],
)
def test_a_file_that_holds_no_flags_is_refused(contents, sentence, tmp_path, capsys):
    path = tmp_path / "flags.yaml"
    path.write_bytes(contents)
    assert main(["transcribe", "a.wav", "--model=m", f"--config={path}"]) == 2
    shown = capsys.readouterr().err
    assert sentence in shown
    assert shown.count("\n") == 1


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert main(["eval", "--model=m", "--dataset_name=d", f"--config={tmp_path / 'pipe'}"]) == 2
    assert "it is not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_results_cannot_go_to_a_web_server(command, capsys):
    fields = {leaf.name for leaf in leaves(config_class(command))}
    flag = next(name for name in ("json", "output_dir", "output") if name in fields)
    needed = [text for name, text in NEEDED.items() if name in fields and name != flag]
    assert main([*command.split(), *needed, f"--{flag}=https://host/out"]) == 2
    shown = capsys.readouterr().err
    assert f"{flag} 'https://host/out' is an address" in shown
    assert shown.count("\n") == 1
