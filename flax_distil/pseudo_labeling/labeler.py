"""The engine of pseudo-labeling: labels the shards of one process and writes their files."""

import contextlib
import dataclasses
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.core.nested import flatten
from flax_distil.core.prefetch import prefetch
from flax_distil.data.decoded_example import SampleError
from flax_distil.metrics.word_errors import word_errors
from flax_distil.pipeline.batch_transcription import BatchTranscriber
from flax_distil.pseudo_labeling.columns import label_table
from flax_distil.pseudo_labeling.config import PseudoLabelConfig
from flax_distil.pseudo_labeling.output import LabelOutput
from flax_distil.pseudo_labeling.progress import LabelProgress
from flax_distil.pseudo_labeling.shard_manifest import ShardManifest
from flax_distil.pseudo_labeling.shard_plan import ShardPlan
from flax_distil.pseudo_labeling.shard_reader import (
    BATCHES_AHEAD,
    Recording,
    ShardBatch,
    ShardInProgress,
    ShardReader,
)
from flax_distil.pseudo_labeling.splits import open_splits
from flax_distil.transcription.results import Transcript

log = logging.getLogger(__name__)

_NOT_FINITE = SampleError("without a finite label", "the teacher's log-probabilities are not finite")

MAX_UNUSABLE = 8
"""So many labels in a row without a finite probability are a fault of the teacher, not of the recordings."""

_DECIDING = (
    "model_name_or_path", "model_revision", "subfolder", "dtype", "task", "return_timestamps",
    "generation_max_length",
    "dataset_name", "dataset_config_name", "dataset_split_name", "audio_column_name", "max_samples",
    "streaming", "samples_per_shard", "concatenate_audio", "id_column_name", "sort_by_speaker",
    "min_duration_in_seconds", "max_duration_in_seconds",
)  # fmt: skip
"""Settings that decide the labels or their division into files; devices and batch sizes do not."""


class Labeler:
    """Labels the shards of this process that no earlier run has finished.

    Args:
        config: Settings of the job.
        teacher: The teacher, whose weights are loaded when the first batch needs them.
        detector: Finds the speech in long recordings.
        output: Output folder.
    """

    def __init__(
        self,
        config: PseudoLabelConfig,
        teacher: BatchTranscriber,
        detector: VoiceActivity,
        output: LabelOutput,
    ):
        self.config, self.teacher, self._output = config, teacher, output
        self._detector = detector
        self.splits = open_splits(config)
        self.name = "+".join(dict.fromkeys(split.source.name for split in self.splits))
        self.plan = ShardPlan([split.plan for split in self.splits])
        self._unusable: list[str] = []
        reading, given = config.data.reading, flatten(config)
        longest = config.speakers.max_concatenated_seconds
        self.settings = {name: given[name] for name in _DECIDING} | {
            "language": teacher.options.language,
            "task": teacher.options.task,
            "vad": detector.name,
            "text_column_name": _shared([split.text_column for split in self.splits]),
            "speaker_column_name": _shared([split.speaker_column for split in self.splits]),
            **({} if reading.normalizer == "whisper" else {"normalizer": reading.normalizer}),
            **({} if reading.channel is None else {"channel": reading.channel}),
            **({} if longest == 30 else {"max_concatenated_seconds": longest}),
            **{f"the rows of {split.name}": split.rows for split in self.splits},
        }

    def run(self, done: Mapping[tuple[int, ...], ShardManifest]) -> float:
        """Label this process's share of the shards that are not done.

        Args:
            done: Manifests of the finished shards of all processes.

        Returns:
            The seconds spent on compilation.
        """
        index, count = jax.process_index(), jax.process_count()
        positions = {key: record.after for key, record in done.items()}
        batch_size = self.teacher.batch_size()
        compile_seconds = self.teacher.warm_up(batch_size)
        if (folder := self.config.encoder_cache_dir) is not None:
            self.teacher.keep_encoder_states(user_path(folder))
        reader = ShardReader(
            batch_size=batch_size,
            detector=self._detector,
            speakers=self.config.speakers,
            durations=self.config.durations,
            threads=self.config.data.reading.dataloader_num_workers or os.cpu_count() or 1,
            policy=self.config.data.reading.retries,
        )
        if index == 0 and self.plan.source_files is not None and self.plan.source_files < count:
            log.warning("%d files for %d processes: some have nothing to do", self.plan.source_files, count)
        batches = reader.batches(self.plan.remaining(positions, index=index, count=count))
        samples = sum(record.samples for record in done.values())
        with (
            self._output.writer(index) as writer,
            LabelProgress(self.name, self.plan, done=samples, processes=count) as bar,
            contextlib.closing(prefetch(batches, ahead=BATCHES_AHEAD)) as waiting,
        ):
            start, labels = time.perf_counter(), list[tuple[Recording, Transcript]]()
            for batch, transcripts in self.teacher.load().transcribe_batches(_sent(waiting)):
                if batch is None:
                    continue
                labels += self._keep_usable(batch, transcripts)
                bar.advance(batch)
                if batch.last:
                    now = time.perf_counter()
                    manifest = self._finish_shard(batch.in_progress, labels, seconds=now - start)
                    writer.write(manifest.to_json())
                    start, labels = now, []
        return compile_seconds

    def _keep_usable(
        self, batch: ShardBatch, transcripts: Sequence[Transcript]
    ) -> list[tuple[Recording, Transcript]]:
        """Leave out recordings for which the teacher's log-probabilities are not finite.

        Raises:
            InputError: If several recordings in a row have no finite log-probability.
        """
        usable = []
        for recording, transcript in zip(batch.recordings, transcripts, strict=True):
            if math.isfinite(transcript.avg_logprob):
                usable.append((recording, transcript))
                self._unusable.clear()
                continue
            self._unusable.append(recording.row.sample_id)
            batch.in_progress.skipped.reject(recording.row, _NOT_FINITE)
            if len(self._unusable) == MAX_UNUSABLE:
                raise self._broken_teacher()
        return usable

    def _broken_teacher(self) -> InputError:
        return InputError(
            f"teacher {self.config.model.name!r} gives log-probabilities that are not finite for "
            f"{len(self._unusable)} recordings in a row, {self._unusable[-1]!r} the last of them: check its "
            "weights, or compute in float32 (dtype)"
        )

    def _finish_shard(
        self, in_progress: ShardInProgress, labels: list[tuple[Recording, Transcript]], *, seconds: float
    ) -> ShardManifest:
        """Write the file of a shard and return its manifest."""
        labels.sort(key=lambda label: label[0].order)
        if not labels and 1 < in_progress.recordings <= len(self._unusable):
            raise self._broken_teacher()  # before the shard counts as done
        recordings = [recording for recording, _ in labels]
        transcripts = [transcript for _, transcript in labels]
        references = [recording.reference or "" for recording in recordings]
        errors = word_errors(references, [t.text for t in transcripts], self.teacher.normalize)
        written: dict[str, Any] = {}
        if recordings:
            number, *key = in_progress.shard.key
            split = self.splits[number]
            table = label_table(
                in_progress.shard.data,
                recordings,
                transcripts,
                features=split.features,
                normalize=self.teacher.normalize,
            )
            written = self._output.write_shard(
                tuple(key), str(split.name), table, process=jax.process_index()
            )
        return ShardManifest(
            key=in_progress.shard.key,
            after=in_progress.shard.after,
            samples=len(in_progress.shard.data),
            **written,
            audio_seconds=math.fsum(recording.seconds for recording in recordings),
            tokens=sum(len(transcript.tokens) for transcript in transcripts),
            errors=dataclasses.asdict(errors),
            skipped=in_progress.skipped.get_state(),
            process_seconds=seconds,
            processes=jax.process_count(),
        )


def _sent(
    batches: Iterable[ShardBatch],
) -> Iterator[tuple[ShardBatch | None, Float[np.ndarray, "B W"] | None, int]]:
    """Yield batches as ``transcribe_batches`` takes them, with a pause behind the last one of each shard.

    No row of the decoder goes on from one file to the next, so a run that was stopped writes the same bytes.
    """
    for batch in batches:
        yield batch, batch.samples_BW, len(batch.recordings)
        if batch.last:
            yield None, None, 0


def _shared(columns: Sequence[str | None]) -> Any:
    """Return the one column of all splits, or the column of each."""
    return columns[0] if len(set(columns)) == 1 else list(columns)
