"""A teacher transcribes a corpus; the result is a data set with its transcripts and confidences.

The corpus is divided into shards that do not depend on the processes. Each shard becomes one Parquet file,
and a shard that a killed run did not finish is labeled again as a whole. Processes share the shards, and wait
for each other only at the beginning and at the end.
"""

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import cast

import jax

from flax_distil.audio.vad_config import VadName
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.checkpoints.hub.upload import check_hub
from flax_distil.core.console import show
from flax_distil.core.errors import InputError
from flax_distil.core.nested import flatten
from flax_distil.data.skipped import SkippedSamples
from flax_distil.parallel.make_partitioner import join_local_devices
from flax_distil.parallel.processes import all_gather_object, raise_on_all_hosts
from flax_distil.parallel.same_settings import check_same_settings
from flax_distil.parallel.shared_folder import check_shared_folder
from flax_distil.pipeline.batch_transcription import BatchTranscriber
from flax_distil.pseudo_labeling.config import PseudoLabelConfig
from flax_distil.pseudo_labeling.labeler import Labeler
from flax_distil.pseudo_labeling.output import LabelOutput
from flax_distil.pseudo_labeling.summary import summarize
from flax_distil.pseudo_labeling.upload import upload_labels
from flax_distil.storage.paths import AnyPath

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabelResult:
    """The result of pseudo-labeling.

    Attributes:
        output_dir: Folder of the data set.
        upload_error: Why the upload failed; None if it did not fail, or was not asked for.
    """

    output_dir: AnyPath
    upload_error: str | None = None


def run(config: PseudoLabelConfig) -> PseudoLabelResult:
    """Label a data set and write it, or only what an earlier run has not finished.

    Raises:
        InputError: For whatever does not fit, before the teacher is loaded; if the disk is full.
    """
    with contextlib.ExitStack() as stack:
        return _run(config, stack)


def _run(config: PseudoLabelConfig, stack: contextlib.ExitStack) -> PseudoLabelResult:
    partitioner = join_local_devices(config.devices)
    check_same_settings(flatten(config))
    if config.encoder_cache_dir is not None and jax.process_count() > 1:
        raise InputError("encoder_cache_dir is set, but only one process can write the encoder states")
    leads = jax.process_index() == 0
    output = raise_on_all_hosts(
        lambda: LabelOutput(str(config.output.output_dir), overwrite=config.output.overwrite_output_dir)
    )
    raise_on_all_hosts(lambda: output.check() if leads else None)
    repository = raise_on_all_hosts(
        lambda: check_hub(config.hub, config.hub_dataset_id, output.folder, "dataset") if leads else None
    )
    teacher = raise_on_all_hosts(lambda: BatchTranscriber(config, partitioner))
    if teacher.is_multilingual and teacher.options.language is None:
        raise InputError(
            f"language is not given, and teacher {config.model.name!r} is multilingual: name the language"
        )
    detector = raise_on_all_hosts(lambda: VoiceActivity(cast(VadName, config.vad)))
    labeler = raise_on_all_hosts(lambda: Labeler(config, teacher, detector, output))
    check_same_settings(labeler.settings)
    raise_on_all_hosts(lambda: stack.enter_context(output.lock()) if leads else None)
    raise_on_all_hosts(lambda: output.begin(labeler.settings) if leads else None)
    if all_gather_object(output.is_complete)[0]:
        log.info("all of %s is labelled already: %s", config.data.dataset_name, config.output.output_dir)
    else:
        _label(labeler, output, leads=leads)
    error = raise_on_all_hosts(
        lambda: (
            None if repository is None else upload_labels(Path(str(output.folder)), repository, config.hub)
        )
    )
    return PseudoLabelResult(output_dir=output.folder, upload_error=error)


def _label(labeler: Labeler, output: LabelOutput, *, leads: bool) -> None:
    check_shared_folder(output.folder)
    digest = all_gather_object(raise_on_all_hosts(labeler.teacher.fingerprint))[0]
    raise_on_all_hosts(lambda: output.check_teacher(digest) if leads else None)
    done = raise_on_all_hosts(output.manifests)
    if done and leads:
        log.info("%d files of an earlier run are finished: going on behind them", len(done))
    compile_seconds = raise_on_all_hosts(lambda: labeler.run(done))
    raise_on_all_hosts(lambda: _finish(labeler, output, compile_seconds) if leads else None)


def _finish(labeler: Labeler, output: LabelOutput, compile_seconds: float) -> None:
    """Write the files that describe the whole data set, and report what was done."""
    records = list(output.manifests().values())
    skipped = SkippedSamples.merge(record.skipped for record in records)
    if not any(record.rows for record in records):
        output.discard()
        raise InputError(f"no recording of data set {labeler.name!r} can be transcribed: {skipped.report()}")
    names = [split.name for split in labeler.splits]
    described = summarize(labeler.config, labeler.name, names, records, compile_seconds=compile_seconds)
    output.finish(described.documents, described.index)
    summary, throughput = described.summary, described.throughput
    against = "" if summary["wer"] is None else f", WER {summary['wer']:.2f} % against the references"
    show(
        f"labelled {summary['labelled']} recordings of {summary['samples']} samples at "
        f"RTFx {throughput.rtfx:.1f}{against}: {labeler.config.output.output_dir}"
    )
    if skipped:
        log.warning("%s", skipped.report())
    if not any(record.tokens for record in records):
        log.warning("every label is empty: does teacher %r fit?", labeler.config.model.name)
