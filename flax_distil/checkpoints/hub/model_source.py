"""The source of a checkpoint: a folder or a Hub id, with revision, subfolder, cache and token."""

import dataclasses
from pathlib import PurePosixPath

from flax_distil.core.errors import InputError
from flax_distil.core.secrets import remember_secret


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSource:
    """The source of a checkpoint that has not been read yet.

    Attributes:
        name: Folder, Hub id, or name of a model in openai/whisper.
        revision: Branch, tag or commit of a Hub id; None for the default branch.
        subfolder: Subfolder that holds the checkpoint; None if the folder itself does.
        cache_dir: Folder of downloads; None for the cache of ``huggingface_hub``.
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
        remember_secret(self.token)
        path = PurePosixPath(self.subfolder or "")
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"subfolder {self.subfolder!r} is not below the checkpoint {self.name!r}")

    def __str__(self) -> str:
        """Return the name of the source in messages."""
        return f"{self.name}/{self.subfolder}" if self.subfolder else self.name
