"""From recordings to transcripts."""

from flax_distil.transcription.results import Transcript, TranscriptionOptions
from flax_distil.transcription.short_form import DispatchedBatch, ShortFormTranscriber, search_program

__all__ = ["DispatchedBatch", "ShortFormTranscriber", "Transcript", "TranscriptionOptions", "search_program"]
