"""Where transcripts go: files of a folder that has a record of what was written, or standard output."""

import collections
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from flax_distil.core.errors import InputError
from flax_distil.pipeline.config import SubtitleOptions
from flax_distil.pipeline.inputs.find_inputs import TranscribeInput
from flax_distil.pipeline.writers.formats import render
from flax_distil.storage.output_dir import check_local, check_writable, make_folder
from flax_distil.storage.paths import write_whole
from flax_distil.transcription.results import Transcript

RECORD_NAME = ".transcripts.jsonl"
"""File of a folder of transcripts with a line for each that was written: its name and its SHA-256.

Lines say too where a command began and where it had done its work: one that was stopped goes on.
"""

MAX_NAME_BYTES = 255
"""Maximum length of a file's name, on nearly every file system."""


class TranscriptFolder:
    """Transcripts as files, each of which is written as a whole or not at all.

    Attributes:
        folder: Absolute path.
    """

    def __init__(
        self,
        output_dir: str,
        formats: Sequence[str],
        subtitles: SubtitleOptions,
        *,
        command: str | None = None,
    ):
        """Name the folder; nothing is made.

        Args:
            output_dir: Path of the folder as the user gave it.
            formats: Formats, of ``WRITERS``.
            subtitles: How words are laid out.
            command: All settings of the command; where the same was stopped before, it goes on. By default
                none goes on.

        Raises:
            InputError: If it cannot be written to.
        """
        check_local("output_dir", output_dir)
        self.folder = Path(str(check_writable(output_dir)))
        self._output_dir, self._formats, self._subtitles = output_dir, formats, subtitles
        self._command = None if command is None else _digest(command.encode())
        self._has_begun = False

    def choose(
        self, inputs: Sequence[TranscribeInput], *, overwrite: bool, skip_existing: bool
    ) -> list[TranscribeInput]:
        """Return the recordings whose transcripts are not all there, or are to be replaced.

        What the same command wrote before it was stopped is there.

        Args:
            inputs: All recordings.
            overwrite: Replace the transcripts that were written here.
            skip_existing: Leave out recordings whose transcripts exist.

        Raises:
            InputError: If transcripts exist that may not be replaced.
        """
        own = self._recorded() if overwrite or skip_existing else {}
        stopped = self._recorded_before_stop()
        self._has_begun = stopped is not None
        chosen = []
        for recording in inputs:
            names = self._names(recording)
            finished = {name for name in names if self._is_whole(name, stopped or {})}
            if len(finished) == len(names):
                continue
            there = [name for name in names if os.path.lexists(self.folder / name) and name not in finished]
            if skip_existing and len(there) == len(names):
                continue
            if there and not (overwrite or skip_existing):
                raise InputError(
                    f"output_dir {self._output_dir!r} already holds {there[0]}: choose another, or set "
                    "skip_existing or overwrite_output_dir"
                )
            self._check_own(there, own)
            chosen.append(recording)
        return chosen

    def refusal(self, recording: TranscribeInput) -> str | None:
        """Return why the transcripts of a recording cannot be written, or None if they can."""
        for name in self._names(recording):
            part = max(map(os.fsencode, Path(name).parts), key=len)
            if len(part) > MAX_NAME_BYTES:
                return (
                    f"the transcript of {recording.given!r} would have a name of {len(part)} bytes, of which "
                    f"files have at most {MAX_NAME_BYTES}: give the recording a shorter one"
                )
        return None

    def write(self, recording: TranscribeInput, transcript: Transcript | None, seconds: float) -> list[Path]:
        """Write the transcript of a recording in every format."""
        if transcript is None:
            return []
        written = []
        for name, output_format in zip(self._names(recording), self._formats, strict=True):
            text = render(transcript, seconds, output_format, self._subtitles)
            path = self.folder / name
            make_folder(path.parent)
            self._begin()
            self._record(
                file=name, sha256=_digest(text.encode())
            )  # first: a file that is not recorded would count as somebody else's
            write_whole(path, text)
            written.append(path)
        return written

    def finish(self) -> None:
        """Note that the command has done its work: it would begin again."""
        if self._command is not None and self._has_begun:
            self._record(ended=self._command)

    def _begin(self) -> None:
        if self._command is not None and not self._has_begun:
            self._record(begun=self._command)
            self._has_begun = True

    def _names(self, recording: TranscribeInput) -> list[str]:
        return [f"{recording.stem}.{name}" for name in self._formats]

    def _check_own(self, names: Iterable[str], own: dict[str, set[str]]) -> None:
        for name in names:
            if not self._is_whole(name, own):
                raise InputError(
                    f"output_dir {self._output_dir!r} holds {name}, which was not written here or was "
                    "changed since, and is not replaced: move it away, or choose another folder"
                )

    def _is_whole(self, name: str, recorded: Mapping[str, set[str]]) -> bool:
        """Whether a file is one of those that were recorded under its name."""
        path = self.folder / name
        return path.is_file() and _digest(path.read_bytes()) in recorded.get(name, ())

    def _record(self, **entry: str) -> None:
        with (self.folder / RECORD_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _entries(self) -> Iterator[dict[str, str]]:
        path = self.folder / RECORD_NAME
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                entry = json.loads(line)
            except ValueError:  # a line that a kill cut off
                continue
            if isinstance(entry, dict):
                yield entry

    def _recorded(self) -> dict[str, set[str]]:
        """Return the digests of what was ever written under each name."""
        written: dict[str, set[str]] = collections.defaultdict(set)
        for entry in self._entries():
            if {"file", "sha256"} <= entry.keys():
                written[entry["file"]].add(entry["sha256"])
        return written

    def _recorded_before_stop(self) -> dict[str, set[str]] | None:
        """Return the digests of what this command wrote before it was stopped; None if it was not."""
        written: dict[str, set[str]] | None = None
        for entry in self._entries():
            if "begun" in entry:
                written = collections.defaultdict(set) if entry["begun"] == self._command else None
            elif "ended" in entry:
                written = None
            elif written is not None and {"file", "sha256"} <= entry.keys():
                written[entry["file"]].add(entry["sha256"])
        return written


class StandardOutput:
    """Transcripts one after the other on standard output, in the order of their recordings."""

    def __init__(self, output_format: str, subtitles: SubtitleOptions):
        """Start without transcripts.

        Args:
            output_format: Format, of ``WRITERS``.
            subtitles: How words are laid out.
        """
        self._format, self._subtitles = output_format, subtitles
        self._order: collections.deque[TranscribeInput] = collections.deque()
        self._finished: dict[TranscribeInput, str] = {}

    def choose(
        self, inputs: Sequence[TranscribeInput], *, overwrite: bool, skip_existing: bool
    ) -> list[TranscribeInput]:
        """Return all recordings."""
        self._order.extend(inputs)
        return list(inputs)

    def refusal(self, recording: TranscribeInput) -> str | None:
        """Return None: every transcript can be shown."""
        return None

    def write(self, recording: TranscribeInput, transcript: Transcript | None, seconds: float) -> list[Path]:
        """Print the transcript once those before it have been printed."""
        self._finished[recording] = (
            "" if transcript is None else render(transcript, seconds, self._format, self._subtitles)
        )
        while self._order and self._order[0] in self._finished:
            print(self._finished.pop(self._order.popleft()), end="", flush=True)
        return []

    def finish(self) -> None:
        """Do nothing: the same command begins again."""


TranscriptOutput = TranscriptFolder | StandardOutput
"""Where transcripts go."""


def _digest(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()
