"""Where a benchmark finds its weights: a folder, or the checkpoints that the tests build."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def checkpoint_folder(model: str) -> Path:
    """Return the folder of a checkpoint: ``model`` itself, or the tests' one of that name."""
    if Path(model).is_dir():
        return Path(model)
    from tests.real_checkpoints import CHECKPOINTS, ensure_checkpoints

    name = model.removeprefix("openai/").removeprefix("whisper-")
    ensure_checkpoints((name,))
    return CHECKPOINTS / f"whisper-{name}"
