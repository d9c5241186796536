"""Make a student of a teacher's layers and write it as a Hugging Face folder."""

import dataclasses

from flax_distil.core import InputError
from flax_distil.weights import initialise_student, load_checkpoint
from flax_distil.workflows.output_folder import WrittenModel, check_dtype, check_output_dir, write_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitStudentConfig:
    """Make a student of maximally spaced (or chosen) layers of a Whisper teacher.

    Attributes:
        teacher_model_name_or_path: Teacher: a Hugging Face or CTranslate2 folder, or a Hub id.
        model_revision: Branch, tag or commit of a teacher on the Hub.
        encoder_layers: Encoder layers of the student, maximally spaced; by default all.
        decoder_layers: Decoder layers of the student, maximally spaced; by default 2.
        encoder_layer_indices: The teacher's encoder layers to copy, instead of a number.
        decoder_layer_indices: The teacher's decoder layers to copy, instead of a number.
        dtype: Element type of the written weights: float16, bfloat16 or float32.
        output_dir: Folder of the student.
        overwrite_output_dir: Allow a folder that is not empty.
        push_to_hub: Upload the student.
        hub_model_id: Repository on the Hub; by default the name of output_dir.
        hub_private_repo: Create it as a private one.

    Raises:
        InputError: if a value is out of range, or two contradict each other.
    """

    teacher_model_name_or_path: str
    model_revision: str | None = None
    encoder_layers: int | None = None
    decoder_layers: int | None = None
    encoder_layer_indices: list[int] | None = None
    decoder_layer_indices: list[int] | None = None
    dtype: str = "float32"
    output_dir: str
    overwrite_output_dir: bool = False
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_private_repo: bool = False

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        for side in ("encoder", "decoder"):
            count, indices = getattr(self, f"{side}_layers"), getattr(self, f"{side}_layer_indices")
            if count is not None and indices is not None:
                raise InputError(
                    f"{side}_layers {count} and {side}_layer_indices {indices} contradict each other: "
                    "give one of them"
                )


def run_student_initialisation(config: InitStudentConfig) -> WrittenModel:
    """Make and write a student.

    Raises:
        InputError: if the teacher cannot be read or lacks the layers, or the folder is taken.
    """
    folder = check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
    decoder_layers = config.decoder_layers
    if decoder_layers is None and config.decoder_layer_indices is None:
        decoder_layers = 2
    teacher = load_checkpoint(config.teacher_model_name_or_path, revision=config.model_revision)
    student = initialise_student(
        teacher,
        encoder_layers=config.encoder_layers,
        decoder_layers=decoder_layers,
        encoder_layer_indices=config.encoder_layer_indices,
        decoder_layer_indices=config.decoder_layer_indices,
    )
    return write_model(
        student,
        folder,
        dtype=config.dtype,
        push=config.push_to_hub,
        repo_id=config.hub_model_id,
        private=config.hub_private_repo,
    )
