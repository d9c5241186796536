"""Configuration of where models are read from, and of students that are made from them."""

import dataclasses
from typing import Any

from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.core.errors import InputError

EXPORT_DTYPES = ("float16", "bfloat16", "float32")
"""Element types that the weights of an export may have."""

LAYER_INITS = ("copy", "average", "collapse")
"""How the layers of a teacher become those of a shallower student."""


def check_layer_init(layer_init: str) -> None:
    """Raise an InputError unless the name is one of :data:`LAYER_INITS`."""
    if layer_init not in LAYER_INITS:
        raise InputError(f"layer_init {layer_init!r} is unknown: expected one of {', '.join(LAYER_INITS)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Weights of an export.

    Attributes:
        export_dtype: Element type of the exported weights: float16, bfloat16 or float32.

    Raises:
        InputError: If the element type is unknown.
    """

    export_dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.export_dtype not in EXPORT_DTYPES:
            expected = ", ".join(EXPORT_DTYPES)
            raise InputError(f"dtype {self.export_dtype!r} of the weights is unknown: expected {expected}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Model.

    Attributes:
        model_name_or_path: Whisper checkpoint: a folder of Hugging Face (safetensors or Flax), of CTranslate2
            or of a PEFT LoRA adapter, a .pt file of openai-whisper, or a Hub id.
        model_revision: Branch, tag or commit of the model on the Hub; by default its main branch.
        subfolder: Subfolder of the model's folder or repository that holds the checkpoint.
        cache_dir: Where models are downloaded to; by default the cache of huggingface_hub.
        token: Access token for models on the Hub; by default that of hf auth login, or HF_TOKEN.
    """

    model_name_or_path: str | None
    model_revision: str | None = None
    subfolder: str | None = None
    cache_dir: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)

    def model_source(self, name: str) -> ModelSource:
        """Return the source of a model by its name, with the revision and subfolder of this configuration."""
        return ModelSource(
            name=name,
            revision=self.model_revision,
            subfolder=self.subfolder,
            cache_dir=self.cache_dir,
            token=self.token,
        )

    def assistant_source(self, name: str) -> ModelSource:
        """Return the source of an assistant model, which has no revision or subfolder of its own."""
        return ModelSource(name=name, cache_dir=self.cache_dir, token=self.token)

    @property
    def name(self) -> str:
        """``model_name_or_path``.

        Raises:
            InputError: If no model is named.
        """
        if self.model_name_or_path is None:
            raise InputError("model_name_or_path is not given: name a model")
        return self.model_name_or_path

    @property
    def source(self) -> ModelSource:
        """The source of the model."""
        return self.model_source(self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Teacher.

    Attributes:
        teacher_model_name_or_path: Teacher, a folder or Hub id.
        teacher_model_revision: Branch, tag or commit of the teacher on the Hub; by default its main branch.
        teacher_subfolder: Subfolder of the teacher's folder or repository that holds the checkpoint.
    """

    teacher_model_name_or_path: str | None
    teacher_model_revision: str | None = None
    teacher_subfolder: str | None = None

    def source(self, model: ModelConfig) -> ModelSource:
        """Return the source of the teacher, which has the cache and the token of the model.

        Raises:
            InputError: If no teacher is named.
        """
        if self.teacher_model_name_or_path is None:
            raise InputError("teacher_model_name_or_path is not given: name a teacher")
        return dataclasses.replace(
            model.assistant_source(self.teacher_model_name_or_path),
            revision=self.teacher_model_revision,
            subfolder=self.teacher_subfolder,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Layers of the student.

    Attributes:
        student_encoder_layers: Number of encoder layers of a student that is made from the teacher; by
            default all of the teacher's.
        student_decoder_layers: Number of decoder layers of a student that is made from the teacher, whose
            maximally spaced layers are copied; by default 2.
        student_encoder_layer_indices: Indices of the teacher's encoder layers to copy, instead of their
            number.
        student_decoder_layer_indices: Indices of the teacher's decoder layers to copy, instead of their
            number.
        max_source_positions: Number of encoder positions, of 20 ms each, of a student that is made from the
            teacher; they must make whole seconds. With 750 it processes 15 s at a time, and longer training
            samples are dropped. By default as many as the teacher has.
        student_layer_init: How layers become fewer: copy takes maximally spaced ones, average the mean of
            each group of neighboring ones, and collapse the first of each group with the differences of the
            others from it added (LaCo, arXiv 2402.11187).

    Raises:
        InputError: If student_layer_init is unknown.
    """

    student_encoder_layers: int | None = None
    student_decoder_layers: int | None = None
    student_encoder_layer_indices: list[int] | None = None
    student_decoder_layer_indices: list[int] | None = None
    max_source_positions: int | None = None
    student_layer_init: str = "copy"

    def __post_init__(self) -> None:
        check_layer_init(self.student_layer_init)

    @property
    def layers(self) -> dict[str, Any]:
        """The chosen layers and positions, by the names of the arguments of ``init_student``."""
        given = {
            "encoder_layers": self.student_encoder_layers,
            "decoder_layers": self.student_decoder_layers,
            "encoder_layer_indices": self.student_encoder_layer_indices,
            "decoder_layer_indices": self.student_decoder_layer_indices,
            "max_source_positions": self.max_source_positions,
            "layer_init": self.student_layer_init,
        }
        if self.student_decoder_layers is None and self.student_decoder_layer_indices is None:
            given["decoder_layers"] = 2
        return given
