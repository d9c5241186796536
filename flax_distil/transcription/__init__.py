"""From recordings to transcripts."""

from flax_distil.transcription.chunked import ChunkedTranscriber
from flax_distil.transcription.common_sequence import CommonSequenceTranscriber
from flax_distil.transcription.fallback import failed, is_silence
from flax_distil.transcription.head_search import HeadSearch, KnownWords, Windows, WordErrors
from flax_distil.transcription.modes import MergingName, ModeName, make_transcriber
from flax_distil.transcription.options import FALLBACK_TEMPERATURES, TranscriptionOptions
from flax_distil.transcription.prompts import Prompts
from flax_distil.transcription.recordings import (
    OnSegment,
    Recordings,
    RecordingTranscriber,
    ShortRecordings,
)
from flax_distil.transcription.results import (
    AlignedWord,
    TranscribedSegment,
    Transcript,
    Word,
    window_transcript,
    without_text,
)
from flax_distil.transcription.sequential import SequentialTranscriber, long_form_defaults
from flax_distil.transcription.short_form import DispatchedBatch, ShortFormTranscriber
from flax_distil.transcription.speculative_decoder import (
    Assistant,
    SpeculativeDecoder,
    SpeculativeStatistics,
)
from flax_distil.transcription.window_decoder import States, WindowDecoder, WindowRequest, WindowResult
from flax_distil.transcription.window_programs import search_program
from flax_distil.transcription.word_timestamps import (
    AlignmentRequest,
    Heads,
    WordAligner,
    attach_words,
    content_frames,
)

__all__ = [
    "FALLBACK_TEMPERATURES",
    "AlignedWord",
    "AlignmentRequest",
    "Assistant",
    "ChunkedTranscriber",
    "CommonSequenceTranscriber",
    "DispatchedBatch",
    "HeadSearch",
    "Heads",
    "KnownWords",
    "MergingName",
    "ModeName",
    "OnSegment",
    "Prompts",
    "RecordingTranscriber",
    "Recordings",
    "SequentialTranscriber",
    "ShortFormTranscriber",
    "ShortRecordings",
    "SpeculativeDecoder",
    "SpeculativeStatistics",
    "States",
    "TranscribedSegment",
    "Transcript",
    "TranscriptionOptions",
    "WindowDecoder",
    "WindowRequest",
    "WindowResult",
    "Windows",
    "Word",
    "WordAligner",
    "WordErrors",
    "attach_words",
    "content_frames",
    "failed",
    "is_silence",
    "long_form_defaults",
    "make_transcriber",
    "search_program",
    "window_transcript",
    "without_text",
]
