"""Recordings whose words a teacher times, and the student's encoder states of them."""

import logging
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from flax_distil.core.arrays import Float
from flax_distil.core.console import is_quiet
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.training.batches import Batch
from flax_distil.data.training.evaluation_pipeline import EvaluationPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.pipeline.align_heads.config import AlignHeadsConfig
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator
from flax_distil.transcription.short_form import ShortFormTranscriber
from flax_distil.transcription.words.head_search import KnownWords
from flax_distil.transcription.words.word_timestamps import AlignmentRequest, WordAligner, content_frames

log = logging.getLogger(__name__)


class TimedRecordings:
    """Reads recordings, and finds with the teacher which words they hold and when each is spoken."""

    def __init__(self, config: AlignHeadsConfig, teacher: WhisperGenerator, student: WhisperGenerator):
        self._config, self._teacher, self._student = config, teacher, student
        self._transcriber, self._aligner = ShortFormTranscriber(teacher), WordAligner(teacher)

    def read(
        self, data: SpeechDataset, indices: range
    ) -> Iterator[tuple[EncoderOutput, list[KnownWords | None]]]:
        """Yield the student's encoder states of each batch, and the words of its rows."""
        config = self._config
        pipeline = EvaluationPipeline(
            data,
            PipelineConfig(
                batch_size=self._teacher.partitioner.local_batch_shards
                * config.batches.per_device_eval_batch_size,
                num_threads=config.data.reading.dataloader_num_workers,
                window_seconds=min(model.config.window_seconds for model in (self._teacher, self._student)),
            ),
            indices=indices,
            too_long="skip",
        )
        for batch in tqdm(pipeline, desc=data.name, unit=" batches", disable=True if is_quiet() else None):
            yield _encoded(self._student, batch.samples_BW), self._rows(batch)
        if pipeline.skipped:
            log.warning("%s", pipeline.skipped.report())

    def _rows(self, batch: Batch) -> list[KnownWords | None]:
        samples_BW = batch.samples_BW
        states = _encoded(self._teacher, samples_BW)
        transcripts = self._transcriber.collect(
            self._transcriber.dispatch_encoded(states, rows=len(samples_BW))
        )
        special = self._teacher.tokenizer.special
        requests = [
            AlignmentRequest(
                tokens=tuple(token for token in transcript.tokens if special.is_text(token)),
                language=transcript.language,
                frames=frames,
            )
            if is_real
            else None
            for transcript, frames, is_real in zip(
                transcripts, content_frames(samples_BW), batch.valid_B, strict=True
            )
        ]
        return [
            KnownWords(request=request, words=words) if request is not None and words else None
            for request, words in zip(requests, self._aligner.align(states, requests), strict=True)
        ]


def _encoded(generator: WhisperGenerator, samples_BW: Float[np.ndarray, "B W"]) -> EncoderOutput:
    """Encode recordings with silence behind them up to the window of the model."""
    silence = generator.config.window_samples - samples_BW.shape[1]
    return generator.encode_samples(np.pad(samples_BW, ((0, 0), (0, silence))))
