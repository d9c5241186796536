"""Any readable checkpoint, written as a Hugging Face folder."""

import dataclasses

from flax_distil.weights import load_checkpoint
from flax_distil.workflows.output_folder import WrittenModel, check_dtype, check_output_dir, write_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a Whisper checkpoint as a Hugging Face folder that transformers loads.

    Attributes:
        model_name_or_path: Checkpoint: a Hugging Face or CTranslate2 folder, or a Hub id.
        model_revision: Branch, tag or commit of a model on the Hub.
        dtype: Element type of the written weights: float16, bfloat16 or float32.
        output_dir: Folder to write.
        overwrite_output_dir: Allow a folder that is not empty.
        push_to_hub: Upload the folder.
        hub_model_id: Repository on the Hub; by default the name of output_dir.
        hub_private_repo: Create it as a private one.

    Raises:
        InputError: if dtype is unknown.
    """

    model_name_or_path: str
    model_revision: str | None = None
    dtype: str = "float16"
    output_dir: str
    overwrite_output_dir: bool = False
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_private_repo: bool = False

    def __post_init__(self) -> None:
        check_dtype(self.dtype)


def run_export(config: ExportConfig) -> WrittenModel:
    """Read a checkpoint and write it.

    Raises:
        InputError: if it cannot be read, or the folder is taken.
    """
    folder = check_output_dir(config.output_dir, overwrite=config.overwrite_output_dir)
    # Read in float32 whatever is written: of the types there are, it alone holds all others exactly.
    checkpoint = load_checkpoint(config.model_name_or_path, revision=config.model_revision)
    return write_model(
        checkpoint,
        folder,
        dtype=config.dtype,
        push=config.push_to_hub,
        repo_id=config.hub_model_id,
        private=config.hub_private_repo,
    )
