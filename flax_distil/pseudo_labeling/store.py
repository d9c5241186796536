"""The folder that pseudo-labelling writes: what is finished there stays valid wherever a run is killed.

A unit is finished once its line is in ``.labelling/progress-….jsonl``, and the line is written after
the Parquet file has its name. So a file without a line is written again, and a line without its end,
of a run that was killed while writing it, does not count.
"""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_distil.core.errors import InputError
from flax_distil.core.output_dir import check_output_dir, check_writable, make_folder
from flax_distil.data.shards.shard_writer import publish, write_shard
from flax_distil.pseudo_labeling.shard_plan import Position, ShardKey

if TYPE_CHECKING:
    import pyarrow

WORK_NAME = ".labelling"
"""Folder of what only an unfinished run needs."""

INDEX_NAME = "index.json"
DATA_NAME = "data"

SUMMARY_NAME = "summary.json"
THROUGHPUT_NAME = "throughput.json"
CARD_NAME = "README.md"

RESULTS = (
    INDEX_NAME, SUMMARY_NAME, THROUGHPUT_NAME, CARD_NAME, f"{DATA_NAME}/*.parquet", f"{DATA_NAME}/*/*.parquet"
)  # fmt: skip
"""Patterns of all files of a finished data set."""

_FORMER_RESULTS = ("dataset_info.json", "state.json", "data-*.arrow")
"""What versions before shards wrote."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardManifest:
    """What is known of a finished unit.

    Attributes:
        key: its number.
        after: of a stream: where the next unit begins.
        samples: rows of the source.
        file: the Parquet file, relative to the folder; None if no recording could be transcribed.
        rows: rows in it.
        bytes: its size.
        sha256: its digest.
        audio_seconds: speech in it.
        tokens: ids generated.
        errors: counts against the references, as ``flax_distil.metrics.word_errors.ErrorCounts`` has them.
        skipped: recordings without a label, as ``SkippedSamples.get_state`` gives them.
        process_seconds: wall-clock time that one process took.
        processes: how many worked at the same time.
    """

    key: ShardKey
    after: Position | None
    samples: int
    file: str | None = None
    rows: int = 0
    bytes: int = 0
    sha256: str | None = None
    audio_seconds: float = 0.0
    tokens: int = 0
    errors: dict[str, int]
    skipped: dict[str, Any]
    process_seconds: float
    processes: int

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, line: str) -> "ShardManifest":
        """Read such a line."""
        values = json.loads(line)
        after = values["after"]
        place = None if after is None else tuple(after)
        return cls(**{**values, "key": tuple(values["key"]), "after": place})


class LabelStore:
    """One output folder.

    Args:
        output_dir: as the user gave it.
        overwrite: whether to begin anew.

    Attributes:
        folder: absolute path.

    Raises:
        InputError: if it cannot be written to.
    """

    def __init__(self, output_dir: str, *, overwrite: bool):
        self.folder = check_writable(output_dir)
        self._output_dir = output_dir
        self._work = self.folder / WORK_NAME
        self._overwrite = overwrite

    def check(self) -> None:
        """Check that nothing is in the folder that must not be touched.

        Raises:
            InputError: if it holds something else than pseudo-labels.
        """
        if self._overwrite or not (self._work.is_dir() or self._earlier()):
            check_output_dir(self._output_dir, overwrite=self._overwrite)

    def begin(self, settings: Mapping[str, Any]) -> bool:
        """Make the folder ready, and say whether all is done there already.

        Args:
            settings: what decides the labels, as JSON takes it.

        Raises:
            InputError: if the folder holds labels made with other settings.
        """
        earlier = None if self._overwrite else self._earlier()
        if earlier is not None:
            self._check(earlier, settings)
            if (self.folder / INDEX_NAME).is_file():
                shutil.rmtree(self._work, ignore_errors=True)
                return True
        make_folder(self._work)
        with self.writing("its first files"):
            if earlier is None:
                self._clear()
            for scratch in self._work.glob("writing-*"):
                scratch.unlink()
            make_folder(self.folder / DATA_NAME)
            self._put(self._work / "run.json", {"settings": settings, **(self._run() or {})})
        return False

    def begin_with(self, teacher: str) -> None:
        """Check that the weights are those of all labels that are there.

        Args:
            teacher: digest of the weights.

        Raises:
            InputError: if they are not.
        """
        run = self._run() or {}
        if run.setdefault("teacher", teacher) != teacher:
            raise InputError(
                f"output_dir {self._output_dir!r} holds labels of a teacher with other weights: choose "
                "another, or set overwrite_output_dir"
            )
        with self.writing("its first files"):
            self._put(self._work / "run.json", run)

    def check_shared(self) -> None:
        """Check that this process sees what the first one wrote.

        Raises:
            InputError: if it does not.
        """
        if not self._work.is_dir() and not (self.folder / INDEX_NAME).is_file():
            raise InputError(
                f"output_dir {self._output_dir!r} is not the folder that process 0 writes to: name one that "
                "all processes share"
            )

    def records(self) -> dict[ShardKey, ShardManifest]:
        """Return the finished units, whichever process did them, in the order of the corpus."""
        found: dict[ShardKey, ShardManifest] = {}
        for path in sorted(self._work.glob("progress-*.jsonl")):
            for line in _whole_lines(path).split("\n")[:-1]:
                record = ShardManifest.from_json(line)
                found[record.key] = record
        return {key: found[key] for key in sorted(found) if self._is_there(found[key])}

    @contextlib.contextmanager
    def progress(self, process: int) -> Iterator[Callable[[ShardManifest], None]]:
        """Give the function that notes a finished unit for good.

        Args:
            process: number of this process; no other writes its file.
        """
        path = self._work / f"progress-{process:05d}.jsonl"
        with self.writing("its progress"):
            self._put(path, _whole_lines(path) if path.is_file() else "")
            file = path.open("ab", buffering=0)

        def note(record: ShardManifest) -> None:
            line = record.to_json().encode()
            with self.writing("its progress"):
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())

        with file:
            yield note

    def write(self, key: ShardKey, part: str, table: "pyarrow.Table", *, process: int) -> dict[str, Any]:
        """Write the Parquet file of a unit and return what its record tells of it.

        Args:
            key: numbers in the file's name.
            part: how the name begins: a split, or configuration/split.
            table: the rows.
            process: number of this process.

        Raises:
            InputError: if it cannot be written.
        """
        file = f"{DATA_NAME}/{'-'.join([part, *(f'{number:05d}' for number in key)])}.parquet"
        make_folder((self.folder / file).parent)
        with self.writing(file):
            written = write_shard(
                table, self.folder / file, scratch=self._work / f"writing-{process:05d}.parquet"
            )
        return {"file": file, "rows": len(table), **dataclasses.asdict(written)}

    def finish(self, documents: Mapping[str, str], index: Mapping[str, Any]) -> None:
        """Write what describes the whole data set; with its index the run is done.

        Args:
            documents: contents by name.
            index: contents of the index beside the settings.
        """
        run = self._run() or {}
        with self.writing("its index"):
            for name, text in documents.items():
                self._put(self.folder / name, text)
            self._put(self.folder / INDEX_NAME, {**run, **index})
        shutil.rmtree(self._work)

    def discard(self) -> None:
        """Take back a folder in which nothing was labelled."""
        shutil.rmtree(self._work)
        with contextlib.suppress(OSError):  # it holds something else
            (self.folder / DATA_NAME).rmdir()
            self.folder.rmdir()

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Make one sentence of a disk that is full, or the like."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot write {what} in output_dir {self._output_dir!r} ({error.strerror or error}): the "
                "finished files there are safe; make room, and the same command goes on"
            ) from error

    def _earlier(self) -> dict[str, Any] | None:
        """Return the settings of the labels that are there."""
        index = self.folder / INDEX_NAME
        try:
            known = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else self._run()
        except ValueError:  # somebody else's index
            return None
        return known.get("settings") if isinstance(known, dict) else None

    def _run(self) -> dict[str, Any] | None:
        path = self._work / "run.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _check(self, earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        for name in {**earlier, **settings}:
            there, here = earlier.get(name), settings.get(name)
            if there != here:
                raise InputError(
                    f"output_dir {self._output_dir!r} holds labels made with {name} {there!r}, not {here!r}: "
                    "choose another, or set overwrite_output_dir"
                )

    def _clear(self) -> None:
        # What tells of labels goes first: a folder half cleared holds none.
        for path in self._work.iterdir():
            path.unlink()
        for pattern in (*RESULTS, *_FORMER_RESULTS):
            for path in self.folder.glob(pattern):
                path.unlink()

    def _put(self, path: Path, content: str | Mapping[str, Any]) -> None:
        text = content
        if not isinstance(text, str):
            text = json.dumps(text, indent=2, ensure_ascii=False) + "\n"
        scratch = self._work / f"writing-{path.name}"
        scratch.write_text(text, encoding="utf-8")
        publish(scratch, path)

    def _is_there(self, record: ShardManifest) -> bool:
        if record.file is None:
            return True
        path = self.folder / record.file
        return path.is_file() and path.stat().st_size == record.bytes


def _whole_lines(path: Path) -> str:
    text = path.read_bytes()
    return text[: text.rfind(b"\n") + 1].decode()
