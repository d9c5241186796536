"""Settings of uploads to the Hugging Face Hub, checked before the work whose results they are."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from flax_distil.checkpoints.hub.upload import UploadError, check_repository, push_to_hub
from flax_distil.core.errors import InputError

log = logging.getLogger(__name__)


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


def upload(folder: Path, repo_id: str | None, config: HubConfig) -> str | None:
    """Upload an export; a failure is logged in one sentence, never raised: the work is safe on disk.

    Args:
        folder: the export.
        repo_id: repository on the Hub, of ``HubConfig.repository``; None uploads nothing.
        config: token, and whether a new repository is private.

    Returns:
        Why the upload failed, None if it did not, or was not asked for.
    """
    if repo_id is None:
        return None
    return tried(
        lambda: push_to_hub(folder, repo_id, token=config.hub_token, private=config.hub_private_repo)
    )


def tried(push: Callable[[], str]) -> str | None:
    """Upload, log what came of it, and return why it failed; None if it did not."""
    try:
        log.info("uploaded to %s", push())
    except UploadError as error:
        log.error("%s", error)
        return str(error)
    return None
