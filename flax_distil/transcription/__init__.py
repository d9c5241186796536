"""From recordings to transcripts."""

from flax_distil.transcription.fallback import failed, is_silence
from flax_distil.transcription.options import FALLBACK_TEMPERATURES, TranscriptionOptions
from flax_distil.transcription.prompts import Prompts
from flax_distil.transcription.recordings import RecordingTranscriber, ShortRecordings, make_transcriber
from flax_distil.transcription.results import TranscribedSegment, Transcript, Word, window_transcript
from flax_distil.transcription.short_form import DispatchedBatch, ShortFormTranscriber
from flax_distil.transcription.speculative_decoder import (
    NUM_ASSISTANT_TOKENS,
    Assistant,
    SpeculativeDecoder,
    SpeculativeStatistics,
)
from flax_distil.transcription.window_decoder import (
    WindowDecoder,
    WindowRequest,
    WindowResult,
    search_program,
)

__all__ = [
    "FALLBACK_TEMPERATURES",
    "NUM_ASSISTANT_TOKENS",
    "Assistant",
    "DispatchedBatch",
    "Prompts",
    "RecordingTranscriber",
    "ShortFormTranscriber",
    "ShortRecordings",
    "SpeculativeDecoder",
    "SpeculativeStatistics",
    "TranscribedSegment",
    "Transcript",
    "TranscriptionOptions",
    "WindowDecoder",
    "WindowRequest",
    "WindowResult",
    "Word",
    "failed",
    "is_silence",
    "make_transcriber",
    "search_program",
    "window_transcript",
]
