"""Alignment heads of a student: found by the word times of its teacher, kept in its generation config."""

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flax_distil.checkpoints.alignment_heads import with_alignment_heads
from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.export import EXPORT_DTYPES, export_checkpoint
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.model_config import TeacherSourceConfig
from flax_distil.core.arrays import Float
from flax_distil.core.checks import check_positive
from flax_distil.core.console import is_quiet, show
from flax_distil.core.errors import InputError
from flax_distil.core.output_dir import atomic_folder, check_output_dir, check_writable
from flax_distil.core.paths import user_path
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.sources.sources import load_sources
from flax_distil.data.training.batches import Batch
from flax_distil.data.training.evaluation_pipeline import EvaluationPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.pipeline.transcription_model import TranscriptionModel
from flax_distil.transcription.config import DatasetTranscriptionConfig
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator
from flax_distil.transcription.short_form import ShortFormTranscriber
from flax_distil.transcription.words.head_search import HeadSearch, KnownWords, Windows, WordErrors
from flax_distil.transcription.words.word_timestamps import (
    AlignmentRequest,
    Heads,
    WordAligner,
    content_frames,
)

log = logging.getLogger(__name__)

SETTINGS = "generation_config.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignHeadsConfig(DatasetTranscriptionConfig, TeacherSourceConfig):
    """Find the heads of a student whose attention gives word timestamps.

    The teacher transcribes the recordings and tells when its words are spoken; of the student, the heads are
    kept that agree best. Every other recording is held out to check them.

    Attributes:
        model_name_or_path: Student, a Hugging Face folder or Hub id.
        teacher_model_name_or_path: Teacher of the same vocabulary, a folder or Hub id.
        max_samples: Use only this many recordings of each data set; more than some hundreds change little.
        max_heads: Keep at most this many heads.
        output_dir: Folder to write the student with its heads to; by default its own folder is changed.
        overwrite_output_dir: Replace the checkpoint of an earlier run in output_dir; other files stay.

    Raises:
        InputError: if a value is out of range.
    """

    teacher_model_name_or_path: str
    max_samples: int | None = 128
    max_heads: int = 10
    output_dir: str | None = None
    overwrite_output_dir: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "max_heads")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignHeadsResult:
    """What was found.

    Attributes:
        heads: pairs of decoder layer and head that the student's generation config names now.
        before: errors of the heads it had, on the recordings held out.
        after: likewise, of ``heads``.
    """

    heads: Heads
    before: WordErrors
    after: WordErrors


def run_head_search(config: AlignHeadsConfig) -> AlignHeadsResult:
    """Find the heads, show their errors and write them; those the student had stay if none are better.

    Raises:
        InputError: for whatever does not fit, before a model is loaded; or if the teacher hears no word.
    """
    folder = _check_folders(config)
    partitioner = config.make_partitioner()
    if partitioner.shard_count > 1:
        raise InputError("align-heads runs in one process: start it on one machine")
    sources = (
        config.teacher_source(config.teacher_model_name_or_path),
        config.model_source(config.model_name_or_path),
    )
    teacher, student = (
        TranscriptionModel(source, partitioner, options=config.options, compute=config.compute)
        for source in sources
    )
    _check_vocabularies(*sources)
    data = load_sources(config.dataset_name, **config.source_options(None))
    known = _KnownRecordings(config, teacher.load(), student.load())
    searched, held_out = (
        [window for part in data for window in known.read(part, range(first, len(part), 2))]
        for first in (0, 1)
    )
    if not all(any(row for _, rows in windows for row in rows) for windows in (searched, held_out)):
        raise InputError(
            f"the teacher hears words in fewer than two recordings of {config.dataset_name!r}: give more"
        )
    search = HeadSearch(student.load())
    result = _better(search, held_out, search.find(searched, most=config.max_heads))
    _write(config, folder, result.heads)
    return result


def _better(search: HeadSearch, held_out: Windows, found: Heads) -> AlignHeadsResult:
    """Compare heads that were found with those the model has, and show both."""
    before, after = search.errors(held_out, [search.present, found])
    for name, heads, errors in (("present", search.present, before), ("found", found, after)):
        show(
            f"{name + ' heads':13}  {errors.mean_seconds:6.3f} s from the teacher's words, "
            f"{errors.within_tenth:6.1%} within 0.1 s: {json.dumps(heads)}"
        )
    if after.mean_seconds < before.mean_seconds:
        return AlignHeadsResult(heads=found, before=before, after=after)
    log.warning("on the recordings held out none are better: the student keeps its alignment heads")
    return AlignHeadsResult(heads=search.present, before=before, after=before)


class _KnownRecordings:
    """Reads recordings, and has the teacher tell what is said in them and when."""

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
                batch_size=self._teacher.partitioner.local_batch_shards * config.per_device_eval_batch_size,
                num_threads=config.dataloader_num_workers,
                window_seconds=min(model.config.window_seconds for model in (self._teacher, self._student)),
            ),
            indices=indices,
            too_long="skip",
        )
        for batch in tqdm(pipeline, desc=data.name, unit=" batches", disable=True if is_quiet() else None):
            yield _encoded(self._student, batch["samples_BW"]), self._rows(batch)
        if pipeline.skipped:
            log.warning("%s", pipeline.skipped.report())

    def _rows(self, batch: Batch) -> list[KnownWords | None]:
        samples_BW = batch["samples_BW"]
        states = _encoded(self._teacher, samples_BW)
        said = self._transcriber.collect(self._transcriber.dispatch_encoded(states, rows=len(samples_BW)))
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
                said, content_frames(samples_BW), batch["valid_B"], strict=True
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


def _check_folders(config: AlignHeadsConfig) -> Path:
    """Return the folder whose settings will be written."""
    if config.output_dir is not None:
        return check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
    folder = user_path(config.model_name_or_path) / (config.subfolder or "")
    if not any(folder.glob("model*.safetensors*")):
        raise InputError(
            f"{config.model_name_or_path!r} is no Hugging Face folder whose {SETTINGS} could be changed: "
            "set output_dir"
        )
    return check_writable(str(folder))


def _check_vocabularies(teacher: ModelSource, student: ModelSource) -> None:
    sizes = [load_checkpoint(source, config_only=True).config.vocab_size for source in (teacher, student)]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"the vocabularies of {teacher} ({sizes[0]} ids) and {student} ({sizes[1]}) differ: choose the "
            "teacher that the student was made of"
        )


def _write(config: AlignHeadsConfig, folder: Path, heads: Heads) -> None:
    source = config.model_source(config.model_name_or_path)
    checkpoint = load_checkpoint(source, config_only=config.output_dir is None)
    settings = with_alignment_heads(checkpoint.files.generation_config, heads)
    files = dataclasses.replace(checkpoint.files, generation_config=settings)
    if config.output_dir is None:
        with atomic_folder(folder) as scratch:
            (scratch / SETTINGS).write_bytes(files.contents()[SETTINGS])
        return
    dtype = files.config.get("dtype") or files.config.get("torch_dtype")
    with atomic_folder(folder, stale=("model*.safetensors*",)) as scratch:
        export_checkpoint(
            checkpoint.params,
            checkpoint.config,
            scratch,
            files=files,
            dtype=jnp.dtype(dtype if dtype in EXPORT_DTYPES else "float32"),
        )
