"""The alignment heads of a student: found by the word times of its teacher, kept in its generation config."""

import dataclasses
import json
import logging

import jax.numpy as jnp

from flax_distil.checkpoints.alignment_heads import with_alignment_heads
from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.model_config import EXPORT_DTYPES
from flax_distil.core.console import show
from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.data.sources.load_datasets import load_tables
from flax_distil.parallel.make_partitioner import join_devices
from flax_distil.pipeline.align_heads.config import AlignHeadsConfig
from flax_distil.pipeline.align_heads.known_words import TimedRecordings
from flax_distil.pipeline.transcription_model import TranscriptionModel
from flax_distil.storage.output_dir import atomic_folder, check_writable
from flax_distil.storage.paths import AnyPath
from flax_distil.transcription.words.head_search import HeadSearch, Windows, WordErrors
from flax_distil.transcription.words.word_timestamps import (
    Heads,
)

log = logging.getLogger(__name__)

SETTINGS = "generation_config.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignHeadsResult:
    """The heads that were found, and how much better they are.

    Attributes:
        heads: Pairs of decoder layer and head that the student's generation config names now.
        before: Errors of the heads that it had before, on the recordings that were held out.
        after: Errors of ``heads`` on the same recordings.
    """

    heads: Heads
    before: WordErrors
    after: WordErrors


def run(config: AlignHeadsConfig) -> AlignHeadsResult:
    """Find the heads, show their errors and write them; the student keeps its own if none are better.

    Raises:
        InputError: If something does not fit, before a model is loaded; or if the teacher hears no word.
    """
    folder = _check_folders(config)
    partitioner = join_devices(config.devices)
    if partitioner.shard_count > 1:
        raise InputError("align-heads runs in one process: start it on one machine")
    sources = (
        config.teacher.source(config.model),
        config.model.source,
    )
    teacher, student = (
        TranscriptionModel(source, partitioner, options=config.options, compute=config.compute)
        for source in sources
    )
    _check_vocabularies(*sources)
    data = load_tables(dataclasses.replace(config.data.spec, text_column=None))
    known = TimedRecordings(config, teacher.load(), student.load())
    searched, held_out = (
        [window for part in data for window in known.read(part, range(first, len(part), 2))]
        for first in (0, 1)
    )
    if not all(any(row for _, rows in windows for row in rows) for windows in (searched, held_out)):
        raise InputError(
            f"the teacher hears words in fewer than two recordings of {config.data.dataset_name!r}: give more"
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


def _check_folders(config: AlignHeadsConfig) -> AnyPath:
    """Return the folder whose settings will be written."""
    if config.output.output_dir is not None:
        return config.output.check()
    folder = user_path(config.model.name) / (config.model.subfolder or "")
    if not any(folder.glob("model*.safetensors*")):
        raise InputError(
            f"{config.model.name!r} is no Hugging Face folder whose {SETTINGS} could be changed: "
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


def _write(config: AlignHeadsConfig, folder: AnyPath, heads: Heads) -> None:
    source = config.model.source
    checkpoint = load_checkpoint(source, config_only=config.output.output_dir is None)
    settings = with_alignment_heads(checkpoint.files.generation_config, heads)
    files = dataclasses.replace(checkpoint.files, generation_config=settings)
    if config.output.output_dir is None:
        with atomic_folder(folder) as scratch:
            (scratch / SETTINGS).write_bytes(files.contents()[SETTINGS])
        return
    dtype = files.config.get("dtype") or files.config.get("torch_dtype")
    with atomic_folder(folder, stale=("model*.safetensors*",), last=["config.json"]) as scratch:
        export_checkpoint(
            checkpoint.params,
            checkpoint.config,
            scratch,
            files=files,
            dtype=jnp.dtype(dtype if dtype in EXPORT_DTYPES else "float32"),
        )
