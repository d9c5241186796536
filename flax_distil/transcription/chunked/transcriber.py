"""Recordings of any length as overlapping chunks, transcribed window after window and merged by times."""

from typing import Any

import numpy as np

from flax_distil.audio.long_mel import LongMel
from flax_distil.transcription.chunked.chunk_lengths import chunk_samples
from flax_distil.transcription.chunked.chunking import cut_at_pauses
from flax_distil.transcription.chunked.recording import ChunkedRecording
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.sequential.transcriber import SequentialTranscriber
from flax_distil.transcription.sequential.vad_filter import SpeechTimestampsMap


class ChunkedTranscriber(SequentialTranscriber):
    """Transcribes recordings of any length in overlapping chunks: many rows of a batch serve one recording.

    A chunk is transcribed as a recording is by ``SequentialTranscriber``: where decoding ends early, it goes
    on behind the last complete timestamp, up to the right stride, which the next chunk hears better.
    Neighbors are merged by ``TimestampMerger``. The language is that of a recording's first chunk.

    A transcript's tokens are those of text that are left after merging, with one log-probability each, and
    ``avg_logprob`` is their mean. The recording is as silent as its least silent window, and its temperature
    is the highest tried.
    """

    def __init__(
        self,
        generator: WhisperGenerator,
        *,
        batch_size: int,
        chunk_length_s: float | None = None,
        stride_length_s: float | tuple[float, float] | None = None,
    ):
        """Choose how recordings are cut.

        Args:
            generator: The checkpoint; see :func:`long_form_defaults` for its options.
            batch_size: Chunks decoded at once at most.
            chunk_length_s: Seconds per chunk, at most 30 (the default); distilled models were made for
                15 (distil-large-v2), 20 (distil-medium.en) or 25 (distil-large-v3).
            stride_length_s: Seconds shared on each side, or on the left and on the right; by default a sixth
                of ``chunk_length_s``.

        Raises:
            InputError: If a length is out of range, or as ``SequentialTranscriber``.
        """
        super().__init__(generator, batch_size=batch_size)
        longest = generator.config.window_seconds
        self._lengths = chunk_samples(chunk_length_s, stride_length_s, longest=longest)

    def _recording(self, mel: LongMel, speech_map: SpeechTimestampsMap | None) -> Any:
        loudness_R = np.maximum(mel.log10_RM, mel.peak - 8.0).mean(axis=1)
        chunks = cut_at_pauses(loudness_R, *self._lengths)
        parts = tuple(self._part(mel, chunk=chunk) for chunk in chunks)
        return ChunkedRecording(parts, chunks, self.generator.tokenizer, speech_map=speech_map)
