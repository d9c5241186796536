"""The command ``export``: a checkpoint written in the formats of other Whisper runtimes."""

import dataclasses
import logging
import time

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.hub.upload import check_hub, upload
from flax_distil.checkpoints.tokenizer import check_tokenizer, has_tokenizer
from flax_distil.checkpoints.training.trained_student import load_trained_student
from flax_distil.core.errors import InputError
from flax_distil.exporting.choices import Choice, choose_formats
from flax_distil.exporting.config import ExportConfig
from flax_distil.exporting.disk_space import check_room
from flax_distil.exporting.format_table import FORMATS
from flax_distil.exporting.formats import huggingface
from flax_distil.exporting.record import ExportRecord
from flax_distil.exporting.repository import ExportCard, repository_layout
from flax_distil.exporting.source import ExportSource
from flax_distil.exporting.verification.compare import Comparison
from flax_distil.exporting.verification.job import Verification
from flax_distil.storage.output_dir import atomic_folder
from flax_distil.storage.paths import AnyPath

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportResult:
    """Result of an export.

    Attributes:
        output_dir: Folder of the export.
        folders: Folder of each format by its name: ``output_dir`` itself if there is one format alone.
        comparisons: Each export in the program that it is for, if recordings to verify were given.
        upload_error: Reason why the upload failed; None if it did not fail, or was not asked for.
    """

    output_dir: AnyPath
    folders: dict[str, AnyPath]
    comparisons: tuple[Comparison, ...] = ()
    upload_error: str | None = None

    @property
    def failed(self) -> list[str]:
        """Formats whose float32 export says something else than the checkpoint does here."""
        return [one.choice.name for one in self.comparisons if one.failed]


def run(config: ExportConfig) -> ExportResult:
    """Write each format, and upload the folder if asked to; a failed upload is reported and not raised.

    Everything that can be refused is refused before any weights are written. A format appears as a whole, so
    if a later one fails, those before it are complete.

    Raises:
        InputError: If a format, a quantization, a package, the checkpoint or the folder is not usable.
    """
    choices = choose_formats(config.format, dtype=config.dtype, quantization=config.quantization)
    folder = config.output.check()
    repository = check_hub(config.hub, config.hub.hub_model_id, folder, "model")
    card = ExportCard(config, repository)
    source = _open(config, choices)
    check_room(source, choices, folder)
    folders = {choice.name: folder if len(choices) == 1 else folder / choice.name for choice in choices}
    verification = Verification.prepare(source, config.verify) if config.verify else None
    record = ExportRecord(folder, choices)
    for choice in choices:
        _write(source, choice, folders[choice.name], record, shard_bytes=config.shard_bytes)
    comparisons = verification.run(choices, folders) if verification else ()
    if any(one.failed for one in comparisons) and repository is not None:
        log.error("nothing is uploaded to %s: an export says something else than the checkpoint", repository)
        repository = None
    card.write(source, choices, folder)
    layout = repository_layout([choice.name for choice in choices])
    return ExportResult(
        output_dir=folder,
        folders=folders,
        comparisons=comparisons,
        upload_error=upload(folder, repository, config.hub, subfolders=layout),
    )


def _open(config: ExportConfig, choices: tuple[Choice, ...]) -> ExportSource:
    """Open the checkpoint, and check that it has what the formats need."""
    if config.checkpoint is not None:
        source = ExportSource.from_checkpoint(load_trained_student(config.model.source, config.checkpoint))
    else:
        # Without the weights, so that a wrong tokenizer is reported before they are downloaded.
        check_tokenizer(load_checkpoint(config.model.source, config_only=True).files)
        source = ExportSource.from_files(config.model.source)
    needing = [choice.name for choice in choices if choice.format.needs_tokenizer]
    if needing and not has_tokenizer(source.files):
        raise InputError(
            f"{source.files.origin} holds no tokenizer, which format {needing[0]} includes: copy the "
            "files of its tokenizer there from the model it was made from"
        )
    return source


def _write(
    source: ExportSource, choice: Choice, folder: AnyPath, record: ExportRecord, *, shard_bytes: int
) -> None:
    start = time.perf_counter()
    stale = [pattern for kind in FORMATS.values() for pattern in kind.weights]
    with atomic_folder(folder, stale=stale, last=["config.json"]) as scratch:
        if choice.name == "hf":
            huggingface.write(source, scratch, quantization=choice.quantization, max_shard_size=shard_bytes)
        else:
            choice.format.writer.write(source, scratch, quantization=choice.quantization)
        size = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
        record.add(choice, size, scratch)
    record.write()
    log.info(
        "wrote %s (%s, %.1f MB) into %s in %.1f s",
        choice.name, choice.quantization, size / 1e6, folder, time.perf_counter() - start,
    )  # fmt: skip
