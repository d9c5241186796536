"""How recordings are cut into windows, and which options each way of cutting takes."""

import dataclasses
from typing import get_args

from flax_distil.core.errors import InputError
from flax_distil.transcription.chunked.chunk_lengths import chunk_samples
from flax_distil.transcription.options import MergingName, ModeName, TranscriptionOptions, long_form_defaults


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeMode:
    """Windows.

    Attributes:
        mode: sequential, chunked, vad (speech is found and packed into windows that do not overlap, each of
            which is decoded once; the fastest for long recordings), or short (one window of at most 30 s).
            auto is chunked if chunk_length_s is given and sequential otherwise, whatever the length of a
            recording.
        chunk_length_s: Length of a chunk in seconds, at most 30.
        stride_length_s: Seconds that a chunk shares with its neighbors on each side. By default a sixth of
            chunk_length_s. In Python also two numbers, for the left and the right side.
        chunk_merging: timestamps decodes chunks with timestamps, to their ends, and merges them by time.
            longest_common_sequence decodes one window per chunk and merges them as transformers does.

    Raises:
        InputError: If a value is unknown or out of range.
    """

    mode: str = "auto"
    chunk_length_s: float | None = None
    stride_length_s: float | tuple[float, float] | None = None
    chunk_merging: str = "timestamps"

    def __post_init__(self) -> None:
        for name, known in (
            ("mode", ("auto", *get_args(ModeName))),
            ("chunk_merging", get_args(MergingName)),
        ):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} {getattr(self, name)!r} is unknown: expected one of {', '.join(known)}"
                )
        cuts = [name for name in ("chunk_length_s", "stride_length_s") if getattr(self, name) is not None]
        if cuts and self.mode not in ("auto", "chunked"):
            raise InputError(f"{cuts[0]} is given, but mode {self.mode} cuts no chunks: leave it out")
        if cuts == ["stride_length_s"] and self.mode == "auto":
            raise InputError("stride_length_s is given without chunk_length_s: give both, or mode chunked")
        if self.chunk_merging != "timestamps" and self.windowing != "chunked":
            raise InputError(
                f"chunk_merging {self.chunk_merging} is given, but no chunks are cut: add chunk_length_s, or "
                "leave it out"
            )
        chunk_samples(self.chunk_length_s, self.stride_length_s)

    @property
    def windowing(self) -> ModeName:
        """How recordings become windows."""
        if self.mode == "auto":
            return "sequential" if self.chunk_length_s is None else "chunked"
        return self.mode  # type: ignore[return-value]  # one of the others, see above

    @property
    def is_sequential(self) -> bool:
        """Whether decoding continues at the last timestamp of a window, with thresholds and fallback."""
        return self.windowing in ("sequential", "chunked") and self.chunk_merging == "timestamps"

    def with_defaults(self, options: TranscriptionOptions) -> TranscriptionOptions:
        """Return options with what this mode needs: timestamps, and the usual thresholds and temperatures."""
        if self.windowing == "vad":
            return long_form_defaults(options, timestamps=False)
        return long_form_defaults(options) if self.is_sequential else options

    def check(self, options: TranscriptionOptions) -> None:
        """Raise ``InputError`` if an option is given that this mode does not have."""
        has_option = {
            "vad": self.is_sequential or self.windowing == "vad",
            "condition_on_prev_tokens": self.windowing == "sequential",
            "clip_timestamps": self.windowing == "sequential",
            "hallucination_silence_threshold": self.is_sequential,
            "multilingual": self.is_sequential or self.windowing in ("short", "vad"),
        }
        for name, is_taken in has_option.items():
            if getattr(options, name) not in (None, False, ()) and not is_taken:
                how = "cuts chunks" if self.windowing == "chunked" else f"is {self.windowing}"
                raise InputError(f"{name} is for mode sequential, and this one {how}: leave {name} out")
