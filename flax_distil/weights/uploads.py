"""The Hugging Face Hub: exports and data sets up."""

import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from flax_distil.core import InputError
from flax_distil.weights.hub import reason

_WAITS_SECONDS = (2.0, 10.0, 60.0)
"""Before a data set is sent again, where the Hub or the way to it fails."""

log = logging.getLogger(__name__)


class UploadError(RuntimeError):
    """The Hub did not take a folder; the message says where it is safe and how to try again."""


def check_repository(
    name: str, *, repo_type: Literal["model", "dataset"], token: str | None = None, private: bool = False
) -> str:
    """Make sure, before any work, that the Hub will take an upload: the repository is made if absent.

    A Hub that cannot be reached is warned of, if the repository is named in full: by the end it may be there.

    Args:
        name: ``user/name``, or a name alone for a repository of the token's owner.
        repo_type: what is uploaded.
        token: access token; by default the one stored by ``hf auth login`` or in ``HF_TOKEN``.
        private: whether a repository made by this call is private.

    Returns:
        The repository as ``user/name``.

    Raises:
        InputError: if there is no token, the Hub refuses it, the name or the writing, or only it could tell
            the owner and it cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    api = HfApi(token=token)
    try:
        owner = api.whoami()["name"]
        full = name if "/" in name else f"{owner}/{name}"
        api.create_repo(full, repo_type=repo_type, private=private, exist_ok=True)
        api.auth_check(full, repo_type=repo_type, write=True)
    except LocalTokenNotFoundError as error:
        raise InputError(
            "push_to_hub needs an access token for the Hugging Face Hub: log in with `hf auth login`, or "
            "give hub_token"
        ) from error
    except Exception as error:  # the network has too many ways to fail, of as many types
        if isinstance(error, HFValidationError) or _is_refusal(error):
            raise InputError(
                f"the Hugging Face Hub refuses uploads to the {repo_type} repository {name!r} "
                f"({reason(error)}): check its name, and that the token may write to it"
            ) from error
        if "/" not in name:
            raise InputError(
                f"the Hugging Face Hub cannot be asked whose repository {name!r} is ({reason(error)}): name "
                "it as user/name, or check the connection"
            ) from error
        log.warning("the Hub cannot be reached now (%s): the upload is tried at the end", reason(error))
        return name
    return full


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload a distilled Whisper",
) -> str:
    """Upload the files of an exported folder (not its sub-folders) in one commit.

    Args:
        folder: the export.
        repo_id: ``user/name``; created if absent.
        token: access token; by default the one stored by ``hf auth login`` or in ``HF_TOKEN``.
        private: whether a repository made by this call is private.
        revision: branch to commit to, made if absent; the default branch if ``None``.
        commit_message: first line of the commit.

    Returns:
        The address of the commit.

    Raises:
        InputError: if ``folder`` holds no export.
        UploadError: if the upload fails for whatever reason; the folder is untouched.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    names = sorted(path.name for path in folder.glob("*") if path.is_file())
    if "config.json" not in names:
        raise InputError(f"{folder} holds no config.json: expected the folder of an export")
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            allow_patterns=names,
            ignore_patterns=["*/*"],
        )
    except Exception as error:  # a run of many hours must not end in a traceback of the network
        retry = ["hf", "upload", repo_id, str(folder), "--exclude", "*/*"]
        retry += ["--revision", revision] if revision else []
        raise UploadError(
            f"could not upload to {repo_id!r} on the Hugging Face Hub ({reason(error)}); "
            f"the export is safe in {folder}, to be uploaded with: {shlex.join(retry)}"
        ) from error
    return commit.commit_url


def push_data_set(
    folder: str | Path,
    repo_id: str,
    *,
    patterns: Sequence[str],
    token: str | None = None,
    private: bool = False,
) -> str:
    """Upload a data set; files that are there already are not sent again.

    Args:
        folder: the data set.
        repo_id: ``user/name``; created if absent.
        patterns: which files, relative to the folder.
        token: as for :func:`push_to_hub`.
        private: whether a repository made by this call is private.

    Returns:
        The address of the commit.

    Raises:
        UploadError: if the upload fails for whatever reason; the folder is untouched.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    for wait in (*_WAITS_SECONDS, None):
        try:
            api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                repo_type="dataset",
                folder_path=folder,
                commit_message="Upload pseudo-labels",
                allow_patterns=list(patterns),
            )
        except Exception as error:  # as in push_to_hub
            if wait is None or _is_refusal(error):
                raise UploadError(
                    f"could not upload to data set {repo_id!r} on the Hugging Face Hub ({reason(error)}); "
                    f"it is safe in {folder}, and the same command uploads it without labelling again"
                ) from error
            log.warning("the upload to %r failed (%s): again in %g s", repo_id, reason(error), wait)
            time.sleep(wait)
        else:
            return commit.commit_url
    raise AssertionError("the last attempt returns or raises")


def _is_refusal(error: Exception) -> bool:
    """Tell a Hub that does not want (no token, no such user, quota) from one that cannot."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status is not None and 400 <= status < 500 and status not in (408, 429)
