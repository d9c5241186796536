"""One checkpoint into another: a student of a teacher, or the same model in another format."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.export import EXPORT_DTYPES, export_checkpoint
from flax_distil.checkpoints.hub.config import HubModelConfig, upload
from flax_distil.checkpoints.model_config import ModelSourceConfig
from flax_distil.checkpoints.student import init_student
from flax_distil.checkpoints.tokenizer import check_tokenizer
from flax_distil.core.errors import InputError
from flax_distil.core.output_dir import atomic_folder, check_output_dir


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(HubModelConfig, ModelSourceConfig):
    """Write any readable checkpoint as a Hugging Face folder.

    Attributes:
        model_name_or_path: Hugging Face or CTranslate2 folder, or Hub id.
        output_dir: Folder to write.
        overwrite_output_dir: Replace the checkpoint of an earlier run in output_dir; other files stay.
        dtype: Element type of the weights: float16, bfloat16 or float32.
    """

    model_name_or_path: str
    output_dir: str
    overwrite_output_dir: bool = False
    dtype: str = "float16"

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitStudentConfig(ModelSourceConfig):
    """Make a student of a teacher's layers.

    Attributes:
        teacher_model_name_or_path: Teacher, a folder or Hub id.
        decoder_layers: Decoder layers of the student, maximally spaced; by default 2.
        encoder_layers: Encoder layers of the student; by default all.
        decoder_layer_indices: The teacher's decoder layers to copy, instead of a number.
        encoder_layer_indices: The teacher's encoder layers to copy, instead of a number.
        max_source_positions: Encoder positions of 20 ms of the student, in whole seconds: 750 hear 15 s at a
            time; by default as many as the teacher.
        output_dir: Folder to write.
        overwrite_output_dir: Replace the checkpoint of an earlier run in output_dir; other files stay.
        dtype: Element type of the weights: float16, bfloat16 or float32.
    """

    teacher_model_name_or_path: str
    decoder_layers: int | None = None
    encoder_layers: int | None = None
    decoder_layer_indices: list[int] | None = None
    encoder_layer_indices: list[int] | None = None
    max_source_positions: int | None = None
    output_dir: str
    overwrite_output_dir: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What an export leaves.

    Attributes:
        output_dir: the folder.
        upload_error: why the upload failed; None if it did not, or was not asked for.
    """

    output_dir: Path
    upload_error: str | None = None


def run_export(config: ExportConfig) -> ExportResult:
    """Write the folder and upload it if asked to; a failed upload is reported, never raised."""
    folder = check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
    repository = config.repository(config.hub_model_id, folder, "model")
    source = config.model_source(config.model_name_or_path)
    check_tokenizer(load_checkpoint(source, config_only=True).files)
    _write(load_checkpoint(source), folder, config.dtype)
    return ExportResult(output_dir=folder, upload_error=upload(folder, repository, config))


def run_init_student(config: InitStudentConfig) -> Path:
    """Write the student's folder and return it."""
    folder = check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
    layers: dict[str, Any] = {
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_layer_indices": config.encoder_layer_indices,
        "decoder_layer_indices": config.decoder_layer_indices,
        "max_source_positions": config.max_source_positions,
    }
    if config.decoder_layers is None and config.decoder_layer_indices is None:
        layers["decoder_layers"] = 2
    # Once without weights, so that wrong layers are known before they are read.
    source = config.model_source(config.teacher_model_name_or_path)
    teacher = load_checkpoint(source, config_only=True)
    check_tokenizer(teacher.files)
    init_student(teacher, **layers)
    student = init_student(load_checkpoint(source), **layers)
    return _write(student, folder, config.dtype)


def _check_dtype(dtype: str) -> None:
    if dtype not in EXPORT_DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown: expected {', '.join(EXPORT_DTYPES)}")


def _write(checkpoint: Checkpoint, folder: Path, dtype: str) -> Path:
    with atomic_folder(folder, stale=("model*.safetensors*",)) as scratch:
        export_checkpoint(
            checkpoint.params, checkpoint.config, scratch, files=checkpoint.files, dtype=jnp.dtype(dtype)
        )
    return folder
