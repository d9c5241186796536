"""Output folders in which a stopped job can continue; a killed job leaves only valid results.

The folder holds the settings that decide the results, written before the first result, and files of JSON
lines, one line for each finished piece of work.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from flax_distil.core.errors import InputError
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.line_files import LineWriter
from flax_distil.storage.output_dir import check_output_dir, check_writable, make_folder
from flax_distil.storage.paths import AnyPath, publish, read_text, write_whole
from flax_distil.storage.run_lock import RunLock


class ResumableOutput:
    """An output folder with a record of what is finished; a subclass describes its files.

    Args:
        output_dir: Folder as the user gave it.
        overwrite: Whether the results of an earlier run are replaced.

    Attributes:
        contents: What the folder holds, in messages: "an evaluation".
        work_name: Folder of the settings and of the lines.
        state_name: File of the settings, in the folder of that name.
        results: Patterns of the files that are removed when the job starts from the beginning.
        folder: Absolute path of the output folder.
        work: Absolute path of the folder of the lines.

    Raises:
        InputError: If the folder cannot be written to.
    """

    contents: ClassVar[str]
    work_name: ClassVar[str]
    state_name: ClassVar[str]
    results: ClassVar[Sequence[str]]

    def __init__(self, output_dir: str, *, overwrite: bool):
        self.folder = check_writable(output_dir)
        self.work = self.folder / self.work_name
        self._output_dir, self._overwrite = output_dir, overwrite

    def check(self) -> None:
        """Check that the folder is new, or holds results that may be continued or replaced.

        Raises:
            InputError: If it does not, or another run writes to it.
        """
        RunLock(self.folder).check()
        if self._overwrite or not self.is_started():
            check_output_dir(self._output_dir, overwrite=self._overwrite)

    def lock(self) -> RunLock:
        """Make the folder, and return the lock under which one process at a time writes to it."""
        make_folder(self.folder)
        return RunLock(self.folder)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Continue with the results that are there, or remove them and start from the beginning.

        Args:
            settings: Settings that determine the results, in a form for JSON.

        Raises:
            InputError: If the folder holds results of other settings.
        """
        given = json.loads(json.dumps(settings))
        earlier = None if self._overwrite else self.earlier_settings()
        if earlier is not None:
            self._check_same_settings(earlier, given)
            return
        make_folder(self.work)
        with self.writing(self.work):
            self._clear()
        self.write_state(self.make_state(given))

    def is_started(self) -> bool:
        """Whether an earlier run has begun in this folder."""
        return self.earlier_settings() is not None

    def earlier_settings(self) -> dict[str, Any] | None:
        """Return the settings of the results that are there; None without results."""
        return self.read_state()

    def make_state(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return what the file of the settings holds at the beginning."""
        return settings

    def read_state(self) -> dict[str, Any] | None:
        """Return what the file of the settings holds; None if there is no such file."""
        return read_object(self.work / self.state_name)

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replace the file of the settings."""
        self.write_file(self.work / self.state_name, state)

    def line_writer(self, path: AnyPath, *, is_synced: bool = False) -> LineWriter:
        """Return what appends lines to a file of this output; see :class:`LineWriter`."""
        return LineWriter(path, self.writing, is_synced=is_synced)

    def write_file(self, path: AnyPath, content: str | Mapping[str, Any]) -> None:
        """Write a text or JSON file of this output, whole or not at all.

        Raises:
            InputError: If it cannot be written.
        """
        text = content if isinstance(content, str) else json_text(content)
        with self.writing(path):
            if isinstance(self.work, BucketPath):
                write_whole(path, text)
            else:
                scratch = self.work / f"writing-{path.name}"
                scratch.write_text(text, encoding="utf-8")
                publish(scratch, path)

    @contextlib.contextmanager
    def writing(self, path: AnyPath) -> Iterator[None]:
        """Raise an ``InputError`` that tells the user what to do if the body fails to write a file."""
        try:
            yield
        except OSError as error:
            name = str(path).removeprefix(f"{self.folder}/")
            raise InputError(
                f"cannot write {name} in output_dir {self._output_dir!r} "
                f"({error.strerror or error}): the finished files there are safe; make room, and the same "
                "command goes on"
            ) from error

    def _check_same_settings(self, earlier: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        for name in {**earlier, **given}:
            there, here = earlier.get(name), given.get(name)
            if there != here:
                raise InputError(
                    f"output_dir {self._output_dir!r} holds {self.contents} with {name} {there!r}, not "
                    f"{here!r}: choose another, or set overwrite_output_dir"
                )

    def _clear(self) -> None:
        # The settings go first, because a folder that is cleared in part must not be continued.
        # The folder of the lines stays: without it a killed run would leave a folder that is not ours.
        (self.work / self.state_name).unlink(missing_ok=True)
        if isinstance(self.work, BucketPath):
            self.work.remove_tree()
        else:
            _empty(self.work)
        for pattern in self.results:
            for path in self.folder.glob(pattern):
                path.unlink()


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def read_object(path: AnyPath) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if there is no file, or something else is in it."""
    try:
        found = json.loads(read_text(path)) if path.is_file() else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def json_text(content: Mapping[str, Any]) -> str:
    """Return an object as the text of a JSON file that people read."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
