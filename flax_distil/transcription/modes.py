"""The ways to transcribe recordings, by name."""

from typing import get_args

from flax_distil.core.errors import InputError
from flax_distil.transcription.chunked.common_sequence import CommonSequenceTranscriber
from flax_distil.transcription.chunked.transcriber import ChunkedTranscriber
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import ModeName
from flax_distil.transcription.recordings import RecordingTranscriber, ShortRecordings
from flax_distil.transcription.sequential.transcriber import SequentialTranscriber


def make_transcriber(
    mode: str,
    generator: WhisperGenerator,
    *,
    batch_size: int,
    chunk_length_s: float | None = None,
    stride_length_s: float | tuple[float, float] | None = None,
    chunk_merging: str = "timestamps",
) -> RecordingTranscriber:
    """Return what transcribes in one of the modes.

    Args:
        mode: "short" (recordings of at most 30 s), "chunked" or "sequential".
        generator: of the checkpoint.
        batch_size: windows decoded at once, over the devices of this process.
        chunk_length_s: of mode chunked; see ``ChunkedTranscriber``.
        stride_length_s: likewise.
        chunk_merging: of mode chunked: "timestamps" (``ChunkedTranscriber``), or "longest_common_sequence"
            (``CommonSequenceTranscriber``).

    Raises:
        InputError: if the mode is unknown or does not fit the options, or a length is out of range.
    """
    if mode == "short":
        return ShortRecordings(generator, batch_size=batch_size)
    if mode == "chunked":
        make = ChunkedTranscriber if chunk_merging == "timestamps" else CommonSequenceTranscriber
        return make(
            generator, batch_size=batch_size, chunk_length_s=chunk_length_s, stride_length_s=stride_length_s
        )
    if mode == "sequential":
        return SequentialTranscriber(generator, batch_size=batch_size)
    raise InputError(f"mode {mode!r} is unknown: expected one of {', '.join(get_args(ModeName))}")
