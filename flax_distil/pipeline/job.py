"""Files and addresses to transcripts on disk."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from flax_distil.core.errors import InputError
from flax_distil.core.nested import flatten
from flax_distil.parallel.make_partitioner import join_devices
from flax_distil.pipeline.config import STANDARD_OUTPUT, TranscribeConfig
from flax_distil.pipeline.inputs.find_inputs import TranscribeInput, find_inputs
from flax_distil.pipeline.inputs.load_ahead import read_ahead
from flax_distil.pipeline.scheduler import Scheduler
from flax_distil.pipeline.transcription_model import configured_model
from flax_distil.pipeline.writers.progress import TranscribeProgress
from flax_distil.pipeline.writers.transcript_output import StandardOutput, TranscriptFolder, TranscriptOutput

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeResult:
    """What became of the recordings.

    Attributes:
        written: Files of transcripts.
        failed: Recordings that could not be transcribed, each with one sentence.
        transcribed: Number of recordings that were transcribed.
    """

    written: list[Path]
    failed: dict[str, str]
    transcribed: int


def run(config: TranscribeConfig) -> TranscribeResult:
    """Transcribe every recording, and write each transcript as soon as it is complete.

    A run that is stopped keeps the transcripts that it wrote, and the same command goes on. A file that
    cannot be read is named, and the others are transcribed.

    Raises:
        InputError: If a transcript exists already or a flag does not fit, before the weights are read; or if
            no file can be transcribed.
    """
    inputs = find_inputs(config.files, recursive=config.recursive)
    output = _open_output(config)
    chosen = output.choose(
        inputs, overwrite=config.output.overwrite_output_dir, skip_existing=config.skip_existing
    )
    if len(chosen) < len(inputs):
        log.info(
            "transcripts of %d of %d recordings are there already", len(inputs) - len(chosen), len(inputs)
        )
    if not chosen:
        output.finish()
        return TranscribeResult(written=[], failed={}, transcribed=0)
    partitioner = join_devices(config.devices)
    if partitioner.shard_count > 1:
        raise InputError("transcribe runs in one process: start it on one machine, or split the files")
    model = configured_model(config, partitioner)
    batch_size = config.batches.per_device_eval_batch_size * partitioner.local_batch_shards
    scheduler = Scheduler(model, partitioner, config.options, config.windows, batch_size)
    result = _transcribe(config, scheduler, chosen, output)
    if not result.transcribed and len(chosen) == len(inputs):
        raise InputError(
            f"none of {len(chosen)} files could be transcribed: {next(iter(result.failed.values()))}"
        )
    return result


def _open_output(config: TranscribeConfig) -> TranscriptOutput:
    """Return where transcripts go, or raise ``InputError`` if nothing can be written there."""
    if config.output.output_dir == STANDARD_OUTPUT:
        return StandardOutput(config.formats[0], config.subtitles)
    command = json.dumps(flatten(config), default=str)
    return TranscriptFolder(str(config.output.output_dir), config.formats, config.subtitles, command=command)


def _transcribe(
    config: TranscribeConfig,
    scheduler: Scheduler,
    inputs: Sequence[TranscribeInput],
    output: TranscriptOutput,
) -> TranscribeResult:
    """Transcribe recordings as they are read, and write what is found as it is found."""
    written: list[Path] = []
    failed: dict[str, str] = {}
    named = {recording.given: recording for recording in inputs}
    verbose = config.verbose and config.output.output_dir != STANDARD_OUTPUT

    def fail(name: str, sentence: str) -> None:
        failed[name] = sentence
        log.error("%s", sentence)
        written.extend(output.write(named[name], None, 0.0))

    for recording in inputs:
        if sentence := output.refusal(recording):
            fail(recording.given, sentence)
    to_read = [name for name in named if name not in failed]
    reads = read_ahead(
        zip(to_read, to_read, strict=True),
        retry_seconds=config.reading.source_retry_seconds,
        channels=config.channels,
    )
    with TranscribeProgress(len(to_read), verbose=verbose) as progress:
        for outcome in scheduler.transcribe(progress.count(reads), on_segment=progress.show_segment):
            progress.finish(outcome)
            if outcome.transcript is None:
                fail(outcome.name, str(outcome.error))
            else:
                written += output.write(named[outcome.name], outcome.transcript, outcome.seconds)
    output.finish()
    return TranscribeResult(written=written, failed=failed, transcribed=len(inputs) - len(failed))
