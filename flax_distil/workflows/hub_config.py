"""Settings of uploads to the Hugging Face Hub, checked before the work whose results they are."""

import dataclasses
from pathlib import Path
from typing import Literal

from flax_distil.core import InputError
from flax_distil.weights import check_repository


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubConfig:
    """Settings of an upload.

    Attributes:
        push_to_hub: Upload the result at the end; the repository is checked, and made, at the start.
        hub_private_repo: Make the repository a private one.
        hub_token: Access token for uploads; by default that of hf auth login, or HF_TOKEN.
    """

    push_to_hub: bool = False
    hub_private_repo: bool = False
    hub_token: str | None = dataclasses.field(default=None, repr=False)

    def repository(
        self, name: str | None, folder: Path, repo_type: Literal["model", "dataset"]
    ) -> str | None:
        """Return the repository to upload to as ``user/name``; None if nothing is uploaded.

        Args:
            name: as the user gave it; None for the folder's name, and the user's own before it.
            folder: the result.
            repo_type: what it is.

        Raises:
            InputError: if the Hub will not take it.
        """
        if not self.push_to_hub:
            return None
        if name is not None and (name.count("/") > 1 or not all(name.split("/"))):
            raise InputError(f"{name!r} is not a repository on the Hugging Face Hub: expected user/name")
        return check_repository(
            name or folder.name, repo_type=repo_type, token=self.hub_token, private=self.hub_private_repo
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubModelConfig(HubConfig):
    """Settings of a model's upload.

    Attributes:
        hub_model_id: Repository on the Hub, as user/name; by default the name of output_dir, below the user
            of the token.
    """

    hub_model_id: str | None = None
