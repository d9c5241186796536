"""The ways to transcribe recordings, by name."""

from typing import get_args

from flax_distil.core.errors import InputError
from flax_distil.transcription.chunked.common_sequence import CommonSequenceTranscriber
from flax_distil.transcription.chunked.transcriber import ChunkedTranscriber
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import ModeName
from flax_distil.transcription.recordings import RecordingTranscriber
from flax_distil.transcription.sequential.transcriber import SequentialTranscriber
from flax_distil.transcription.short_form import ShortFormTranscriber
from flax_distil.transcription.vad.transcriber import VadTranscriber


def make_transcriber(
    mode: str,
    generator: WhisperGenerator,
    *,
    batch_size: int,
    chunk_length_s: float | None = None,
    stride_length_s: float | tuple[float, float] | None = None,
    chunk_merging: str = "timestamps",
    pad_batches: bool = False,
) -> RecordingTranscriber:
    """Return the transcriber of a mode.

    Args:
        mode: "short" (recordings of at most one window), "vad", "chunked" or "sequential".
        generator: The checkpoint.
        batch_size: Maximum number of windows decoded at once, over the devices of this process.
        chunk_length_s: For mode chunked; see ``ChunkedTranscriber``.
        stride_length_s: For mode chunked; see ``ChunkedTranscriber``.
        chunk_merging: For mode chunked: "timestamps" (``ChunkedTranscriber``), or "longest_common_sequence"
            (``CommonSequenceTranscriber``).
        pad_batches: For modes short and vad: pad batches to ``batch_size``, so that one size is compiled.

    Raises:
        InputError: If the mode is unknown or does not fit the options, or if a length is out of range.
    """
    if mode == "short":
        return ShortFormTranscriber(generator, batch_size=batch_size, pad_batches=pad_batches)
    if mode == "chunked":
        make = ChunkedTranscriber if chunk_merging == "timestamps" else CommonSequenceTranscriber
        return make(
            generator, batch_size=batch_size, chunk_length_s=chunk_length_s, stride_length_s=stride_length_s
        )
    if mode == "vad":
        return VadTranscriber(generator, batch_size=batch_size, pad_batches=pad_batches)
    if mode == "sequential":
        return SequentialTranscriber(generator, batch_size=batch_size)
    raise InputError(f"mode {mode!r} is unknown: expected one of {', '.join(get_args(ModeName))}")
