"""The commands ``export`` and ``init-student``, which make one checkpoint from another."""

import dataclasses

import jax.numpy as jnp

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.config import ExportConfig, InitStudentConfig
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.hub.upload import check_hub, upload
from flax_distil.checkpoints.student import init_student
from flax_distil.checkpoints.tokenizer import check_tokenizer
from flax_distil.checkpoints.training.trained_student import load_trained_student
from flax_distil.storage.output_dir import atomic_folder
from flax_distil.storage.paths import AnyPath


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportResult:
    """Result of an export.

    Attributes:
        output_dir: Folder of the export.
        upload_error: Reason why the upload failed; None if it did not fail, or was not asked for.
    """

    output_dir: AnyPath
    upload_error: str | None = None


def run_export(config: ExportConfig) -> ExportResult:
    """Write the folder, and upload it if asked to; a failed upload is reported and not raised."""
    folder = config.output.check()
    repository = check_hub(config.hub, config.hub.hub_model_id, folder, "model")
    if config.checkpoint is None:
        check_tokenizer(load_checkpoint(config.model.source, config_only=True).files)
        checkpoint = load_checkpoint(config.model.source)
    else:
        checkpoint = load_trained_student(config.model.source, config.checkpoint)
    _write(checkpoint, folder, config.weights.export_dtype)
    return ExportResult(output_dir=folder, upload_error=upload(folder, repository, config.hub))


def run_init_student(config: InitStudentConfig) -> AnyPath:
    """Write the folder of the student, and return its path."""
    folder, layers = config.output.check(), config.student.layers
    # The first call has no weights, so that wrong layers are reported before the weights are read.
    teacher = load_checkpoint(config.teacher.source, config_only=True)
    check_tokenizer(teacher.files)
    init_student(teacher, **layers)
    student = init_student(load_checkpoint(config.teacher.source), **layers)
    return _write(student, folder, config.weights.export_dtype)


def _write(checkpoint: Checkpoint, folder: AnyPath, dtype: str) -> AnyPath:
    with atomic_folder(folder, stale=("model*.safetensors*",), last=["config.json"]) as scratch:
        export_checkpoint(
            checkpoint.params, checkpoint.config, scratch, files=checkpoint.files, dtype=jnp.dtype(dtype)
        )
    return folder
