"""What ``transcribe`` shows while it works: segments as they are found, and a progress bar."""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from tqdm import tqdm

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.console import is_quiet, show
from flax_distil.pipeline.recording import LoadedAudio, TranscriptionOutcome
from flax_distil.pipeline.writers.formats import timestamp
from flax_distil.transcription.results import TranscribedSegment


class TranscribeProgress:
    """Lines on standard output, and a bar of seconds of audio on standard error if that is a terminal."""

    def __init__(self, files: int, *, verbose: bool):
        """Start a progress bar.

        Args:
            files: Number of recordings; their names are shown if there are several.
            verbose: Whether to show segments.
        """
        self._files, self._verbose = files, verbose
        self._bar = tqdm(total=0, unit=" s", disable=True if is_quiet() else None, bar_format=_BAR)
        self._bar.set_postfix_str(f"0/{files} files", refresh=False)
        self._done = 0
        self._reached: dict[Any, float] = {}

    def count(self, recordings: Iterable[LoadedAudio | None]) -> Iterator[LoadedAudio | None]:
        """Yield recordings, and add their seconds to those that are to be transcribed."""
        for recording in recordings:
            if recording is not None:
                self._bar.total += round(len(recording.samples) / SAMPLING_RATE / max(1, recording.channels))
                self._bar.refresh()
            yield recording

    def show_segment(self, name: Any, segment: TranscribedSegment) -> None:
        """Show a segment of a recording."""
        if self._verbose and segment.text.strip():
            self._show(name, f"[{_time(segment.start)} --> {_time(segment.end)}] {segment.text}")
        if segment.end is not None:
            self._reach(name, segment.end)

    def finish(self, outcome: TranscriptionOutcome) -> None:
        """Count a recording as done, and show its text if it has no segments."""
        transcript = outcome.transcript
        if self._verbose and transcript is not None and not transcript.segments:
            self._show(outcome.name, transcript.text)
        self._reach(outcome.name, outcome.seconds)
        self._done += 1
        self._bar.set_postfix_str(f"{self._done}/{self._files} files")

    def _show(self, name: Any, text: str) -> None:
        with tqdm.external_write_mode():
            show(text if self._files == 1 else f"{name}: {text}")

    def _reach(self, name: Any, seconds: float) -> None:
        before = self._reached.get(name, 0.0)
        if seconds > before:
            self._bar.update(round(seconds) - round(before))
            self._reached[name] = seconds

    def __enter__(self) -> "TranscribeProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} s of audio [{elapsed}<{remaining}{postfix}]"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else timestamp(seconds, with_hours=False, decimal_mark=".")
