"""The folder of an evaluation: every recording that was transcribed is a line there, at once.

A run that is stopped anywhere leaves whole lines (and perhaps a piece of one, which does not count),
and the same command goes on behind them. Figures are made from the lines alone.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from flax_distil.core.errors import InputError
from flax_distil.core.output_dir import check_output_dir, check_writable, make_folder
from flax_distil.core.paths import user_path
from flax_distil.data.shards.shard_writer import publish
from flax_distil.evaluation.records import Record, Records, decoded, encoded

WORK_NAME = "predictions"
"""Folder of the lines, a file for each model, data set, condition and process."""

SETTINGS_NAME = f"{WORK_NAME}/settings.json"

RESULTS_NAME, SAMPLES_NAME, REPORT_NAME = REPORTS = ("results.json", "predictions.csv", "report.html")
"""What is made of the lines once all are there."""

LONGEST_NAME = 200
"""Characters of the name of a folder; file systems take 255 bytes."""

Key = tuple[str, ...]
"""Model, data set and condition of a unit, or what else lines belong to."""


class RecordWriter:
    """Appends lines to one file of one process; each is there once ``write`` returns."""

    def __init__(self, path: Path):
        make_folder(path.parent)
        if path.is_file():
            os.truncate(path, len(_whole_lines(path)))  # without the piece that a kill may have left
        self._path = path
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, *lines: Record) -> None:
        """Append lines, all at once.

        Raises:
            InputError: if the disk is full.
        """
        data = "".join(map(encoded, lines)).encode()
        try:
            whole = self._file.write(data) == len(data)
        except OSError:
            whole = False
        if not whole:
            raise InputError(
                f"{str(self._path)!r} cannot be written to: make room on its disk, and the same command "
                "goes on"
            )


class EvalStore:
    """One output folder, or a temporary one that goes with the context.

    Attributes:
        folder: absolute path.
        keep: whether it stays.
    """

    def __init__(self, output_dir: str | None, *, overwrite: bool):
        """Name the folder; nothing is looked at or made, but a temporary one.

        Args:
            output_dir: as the user gave it; None for a temporary folder.
            overwrite: begin anew where there are results of an earlier run.
        """
        self.keep = output_dir is not None
        self._output_dir = output_dir if output_dir is not None else tempfile.mkdtemp(prefix="flax-distil-")
        self._overwrite = overwrite
        self.folder = user_path(self._output_dir).absolute()

    def __enter__(self) -> "EvalStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def check(self) -> None:
        """Check that the folder is new, or holds an evaluation.

        Raises:
            InputError: if it does not, or cannot be written to.
        """
        if self._overwrite or self._settings() is None:
            check_output_dir(self._output_dir, overwrite=self._overwrite)
        else:
            check_writable(self._output_dir)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Make the folder ready.

        Args:
            settings: what decides the results, as JSON takes it.

        Raises:
            InputError: if it holds an evaluation with other settings.
        """
        wanted = json.loads(json.dumps(settings))
        earlier = None if self._overwrite else self._settings()
        if earlier is not None:
            self._check(earlier, wanted)
            return
        shutil.rmtree(self.folder / WORK_NAME, ignore_errors=True)
        for name in REPORTS:
            (self.folder / name).unlink(missing_ok=True)
        make_folder(self.folder / WORK_NAME)
        scratch = self.folder / f"{SETTINGS_NAME}.writing"
        scratch.write_text(json.dumps(wanted, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        publish(scratch, self.folder / SETTINGS_NAME)

    def check_shared(self) -> None:
        """Check that this process sees what the first one wrote.

        Raises:
            InputError: if it does not.
        """
        if self.keep and self._settings() is None:
            raise InputError(
                f"output_dir {self._output_dir!r} is not the folder that process 0 writes to: name one that "
                "all processes share"
            )

    def records(self, key: Key, *, process: int = 0, processes: int = 1) -> Records:
        """Return what was written of a unit.

        Args:
            key: the unit.
            process: number of this process.
            processes: how many there are now: each reads the files that are its own modulo this number,
                so all of them together read each file once.
        """
        lines: list[Record] = []
        for path in sorted(self._folder(key).glob("*.jsonl")):
            if int(path.stem) % processes == process:
                lines += map(decoded, _whole_lines(path).decode().split("\n")[:-1])
        return Records(lines)

    def writer(self, key: Key, *, process: int) -> RecordWriter:
        """Return what appends to a unit; no other process writes its file."""
        return RecordWriter(self._folder(key) / f"{process:05d}.jsonl")

    def _folder(self, key: Key) -> Path:
        return self.folder.joinpath(WORK_NAME, *map(_folder_name, key))

    def _settings(self) -> dict[str, Any] | None:
        path = self.folder / SETTINGS_NAME
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def _check(self, earlier: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        for name in {**earlier, **wanted}:
            there, here = earlier.get(name), wanted.get(name)
            if there != here:
                raise InputError(
                    f"output_dir {self._output_dir!r} holds an evaluation with {name} {there!r}, not "
                    f"{here!r}: choose another, or set overwrite_output_dir"
                )


def _folder_name(part: str) -> str:
    """Return a name that a folder can have, whatever a model or a data set is called."""
    name = quote(part, safe=" ")
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 17]}-{hashlib.sha256(part.encode()).hexdigest()[:16]}"


def _whole_lines(path: Path) -> bytes:
    text = path.read_bytes()
    return text[: text.rfind(b"\n") + 1]
