"""A recording whose chunks are transcribed in parallel, and the transcript that they become."""

import dataclasses
from collections.abc import Sequence

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.chunked.chunking import Chunk
from flax_distil.transcription.chunked.timestamp_merging import TimestampMerger
from flax_distil.transcription.recording_times import keep_within
from flax_distil.transcription.results import TranscribedSegment, Transcript, segments_transcript
from flax_distil.transcription.sequential.recording import SequentialRecording
from flax_distil.transcription.sequential.split_by_timestamps import FRAMES_PER_SECOND
from flax_distil.transcription.sequential.vad_filter import SpeechTimestampsMap


class ChunkedRecording:
    """A recording in chunks, which are merged in order when they are finished.

    Attributes:
        parts: The chunks, each transcribed as a recording.
        frames: Number of frames of 10 ms of the recording.
    """

    def __init__(
        self,
        parts: tuple[SequentialRecording, ...],
        chunks: Sequence[Chunk],
        tokenizer: WhisperTokenizer,
        *,
        speech_map: SpeechTimestampsMap | None = None,
    ):
        """Begin with chunks that are not transcribed yet.

        Args:
            parts: One for each chunk.
            chunks: Where the chunks lie.
            tokenizer: Tokenizer of the checkpoint.
            speech_map: Maps times of the samples to times of the recording, if silence was cut out.
        """
        self.parts, self._chunks, self._tokenizer = parts, chunks, tokenizer
        self.frames = parts[-1].frames
        self._speech_map = speech_map
        self._merger: TimestampMerger | None = None
        self._merged = self._num_reported = 0
        self._text_end = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether no part has a window left."""
        return all(part.is_finished for part in self.parts)

    def take_segments(self) -> list[TranscribedSegment]:
        """Return the segments that no later chunk can change, and that were not returned before."""
        self._merge()
        if self._merger is None:
            return []
        fixed = self._merger.fixed(
            None if self.is_finished else self._chunks[self._merged].start / SAMPLING_RATE
        )
        found = self._place(fixed[self._num_reported :])
        self._num_reported = len(fixed)
        return found

    def transcript(self) -> Transcript:
        """Return the transcript; see ``ChunkedTranscriber``."""
        self._merge()
        self._text_end = 0.0
        heard = [part for part in self.parts if part.has_windows] or self.parts
        return segments_transcript(
            self._place(self._merger.fixed(None) if self._merger is not None else []),
            ends_of_text=0,
            no_speech_prob=min(part.no_speech_prob for part in self.parts),
            language=heard[0].language or "en",
            language_probabilities=heard[0].language_probabilities,
            temperature=max(part.temperature for part in self.parts),
        )

    def _merge(self) -> None:
        """Merge the chunks that are finished, up to the first that is not."""
        while self._merged < len(self.parts) and self.parts[self._merged].is_finished:
            part, chunk = self.parts[self._merged], self._chunks[self._merged]
            if self._merger is None:
                self._merger = TimestampMerger(self._tokenizer, language=part.language or "en")
            self._merger.add(
                part.kept,
                start=chunk.start / SAMPLING_RATE,
                middle=(chunk.start + chunk.stride_left) / SAMPLING_RATE,
            )
            self._merged += 1

    def _place(self, segments: Sequence[TranscribedSegment]) -> list[TranscribedSegment]:
        """Return segments that follow each other, with times of the recording."""
        ordered: list[TranscribedSegment] = []
        for segment in segments:
            begun = ordered[-1].end if ordered else self._text_end
            if begun is not None and segment.end is not None and segment.start < begun:
                segment = dataclasses.replace(segment, start=min(begun, segment.end))
            ordered.append(segment)
        placed = keep_within(ordered, begin=self._text_end, end=self.frames / FRAMES_PER_SECOND)
        if placed:
            self._text_end = placed[-1].end or self._text_end
        return [self._speech_map.restore(segment) if self._speech_map else segment for segment in placed]
