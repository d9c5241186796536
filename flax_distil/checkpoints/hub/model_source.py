"""Where a checkpoint is read from: a folder or a Hub id, and what goes with it."""

import dataclasses
from pathlib import PurePosixPath

from flax_distil.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A checkpoint, not read yet.

    Attributes:
        name: Folder, Hub id, or a name that openai/whisper gives to a model.
        revision: Branch, tag or commit of a Hub id; None for the default branch.
        subfolder: Folder within it that holds the checkpoint; None if it does itself.
        cache_dir: Where downloads are kept; None for where ``huggingface_hub`` keeps them.
        token: Access token; None for the one of ``hf auth login`` or ``HF_TOKEN``.

    Raises:
        InputError: If the subfolder is not below the folder.
    """

    name: str
    revision: str | None = None
    subfolder: str | None = None
    cache_dir: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        path = PurePosixPath(self.subfolder or "")
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"subfolder {self.subfolder!r} is not below the checkpoint {self.name!r}")

    def __str__(self) -> str:
        """Return what messages call it."""
        return f"{self.name}/{self.subfolder}" if self.subfolder else self.name
