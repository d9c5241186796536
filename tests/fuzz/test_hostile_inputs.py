"""More than five hundred hostile inputs of nine kinds through the commands.

Each is read, counted as skipped, or refused in one sentence, in seconds. No file appears or changes outside
the output folder, no address is opened, and no temporary file stays.
"""

import functools
import itertools
import shutil
import tempfile
from pathlib import Path

import pytest

from flax_distil.cli.main import COMMANDS, config_class, main
from flax_distil.core.nested import leaves
from tests.audio.malformed_audio import malformed_audio
from tests.checkpoints.malformed_checkpoints import malformed_checkpoints
from tests.checkpoints.toy_folder import toy_files, write_files
from tests.cli.malformed_flags import malformed_flags
from tests.data.malformed_rows import malformed_rows
from tests.fuzz.attempts import Attempts, Watched
from tests.fuzz.test_malformed_inputs import NEEDED, checkpoint_commands

CHECKPOINTS = {
    "configurations": ("field", "size", "document", "text"),
    "safetensors": ("header", "weights", "index", "not-finite"),
    "tokenizers": ("token", "old-tokenizer"),
    "weights of other programs": ("openai", "flax"),
}
FLAGS = {"YAML": ("file", "entry"), "flags": ("value", "value", "value", "lone", "unknown", "missing")}


class Place:
    """A place deep in a folder, whose other folders must not change: several ``..`` from here stay within."""

    def __init__(self, root: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch):
        self.attempts, self.monkeypatch = attempts, monkeypatch
        here = root.joinpath(*"abcdef")
        self.output, self.cache = here / "work" / "output", here / "work" / "cache"
        for name in ("home/.cache", "home/.config", "temporary", "cwd", "work"):
            (here / name).mkdir(parents=True)
        (root / "canary.wav").write_bytes(b"not to be touched")
        self.work = here / "work"
        self.model = write_files(here / "model", toy_files())
        monkeypatch.setenv("HOME", str(here / "home"))
        monkeypatch.setattr(tempfile, "tempdir", str(here / "temporary"))
        monkeypatch.chdir(here / "cwd")
        plots = [here / "home" / name / "matplotlib" for name in (".cache", ".config")]
        attempts.watched = Watched(root, (self.output, self.cache, *plots))

    def run(self, kind: str, name: str, line: list[str], *, statuses: tuple[int, ...] = (0, 2)) -> None:
        run = functools.partial(main, line)
        self.attempts.run(kind, f"{name}: {' '.join(line)[:300]}", run, statuses=statuses)
        shutil.rmtree(self.output, ignore_errors=True)

    def inspect(self, kind: str, name: str, source: Path) -> None:
        line = ["data", "inspect", "--model_name_or_path", str(self.model), "--language", "en"]
        line += ["--label_column_name", "whisper_transcript", "--text_column_name", "text"]
        line += ["--num_shown_samples", "1", "--source_retry_seconds", "1", "--quiet"]
        line += ["--dataset_cache_dir", str(self.cache), "--train_dataset_name", str(source)]
        self.run(kind, name, line if kind == "audio" else [*line, "--output_dir", str(self.output)])


@pytest.fixture
def place(attempts, tmp_path, monkeypatch):
    return Place(tmp_path, attempts, monkeypatch)


def try_checkpoints(place: Place, kind: str, seed: int, count: int) -> None:
    for index, (name, files) in enumerate(malformed_checkpoints(seed, count, kinds=CHECKPOINTS[kind])):
        folder = write_files(place.work / "hostile", files)
        line = checkpoint_commands(folder, place.output)[index % 5]
        place.run(kind, name, line, statuses=(0, 1, 2))
        shutil.rmtree(folder)


def try_recordings(place: Place, seed: int, count: int) -> None:
    """Let a command read recordings, each as the only row of a data set."""
    for name, contents in malformed_audio(seed, count):
        folder = write_files(place.work / "hostile", {name: contents})
        (folder / "rows.csv").write_text(f"audio,text,whisper_transcript\n{name},a,a\n")
        place.inspect("audio", name, folder / "rows.csv")
        shutil.rmtree(folder)


def try_rows(place: Place, kind: str, seed: int, count: int) -> None:
    for source in malformed_rows(seed, count, kinds=(kind,)):
        place.inspect(kind, f"{kind} {source.number}", source.path)


def try_flags(place: Place, kind: str, seed: int, count: int) -> None:
    """Give flags to each command in turn, whose work is nothing here."""
    each = -(-count // len(COMMANDS))
    cases = []
    for index, (command, (_, function)) in enumerate(COMMANDS.items()):
        names = [leaf.name for leaf in leaves(config_class(command))]
        needed = [NEEDED[name] for name in names if name in NEEDED]
        place.monkeypatch.setattr(f"flax_distil.{function.replace(':', '.')}", lambda config: None)
        names = [name for name in names if name != "files"]
        made = malformed_flags(seed + index, each, names, needed, kinds=FLAGS[kind])
        cases += [(command, case) for case in made]
    for command, case in itertools.islice(cases, count):
        file = place.work / f"flags{case.suffix}"
        file.write_bytes(case.file or b"")
        arguments = [argument.replace("{file}", str(file)) for argument in case.arguments]
        place.run(kind, f"{command} {case.name}", [*command.split(), *arguments])
        file.unlink()


KINDS = {
    **{kind: functools.partial(try_checkpoints, kind=kind) for kind in CHECKPOINTS},
    "audio": try_recordings,
    **{kind: functools.partial(try_rows, kind=kind) for kind in ("parquet", "tar")},
    **{kind: functools.partial(try_flags, kind=kind) for kind in FLAGS},
}


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_inputs_are_read_skipped_or_refused_in_one_sentence(place, kind):
    KINDS[kind](place, seed=40, count=6)
    place.attempts.check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_five_hundred_hostile_inputs_are_read_skipped_or_refused_in_one_sentence(place, kind):
    KINDS[kind](place, seed=41, count=63)
    assert sum(sum(counter.values()) for counter in place.attempts.counts.values()) == 63
    place.attempts.check()
