"""Check that the Hugging Face Hub accepts an upload, and upload an exported model to it."""

import fnmatch
import functools
import logging
import shlex
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from flax_distil.checkpoints.hub.config import HubConfig
from flax_distil.checkpoints.hub.download import reason
from flax_distil.checkpoints.hub.retries import UploadError, is_refusal, patiently
from flax_distil.core.errors import InputError
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.downloads import local_copy
from flax_distil.storage.paths import AnyPath
from flax_distil.storage.run_lock import LOCK_NAME

log = logging.getLogger(__name__)

_PRIVATE = {LOCK_NAME, "run.json", "samples.json", "wandb.json", "report.html"}
"""Files that tell of machines, folders and training samples, and are not uploaded."""

EVAL_RESULTS_NAME = ".eval_results"
"""Folder with results of evaluations in the form that the Hub reads; it is uploaded wherever it is."""

_WEIGHT_SUFFIXES = frozenset({".bin", ".pt"})
"""Endings of the weights of formats that need no ``config.json``."""

_WEIGHTS = "model*.safetensors*"
"""Pattern of the weights of an export and of their index, of which an earlier export may have had others."""


def check_repository(
    name: str, *, repo_type: Literal["model", "dataset"], token: str | None = None, private: bool = False
) -> str:
    """Check before any work that the Hub accepts an upload; the repository is created if absent.

    If the Hub cannot be reached and the repository is named in full, this is only a warning, because the Hub
    may be reachable at the end.

    Args:
        name: ``user/name``, or a name alone for a repository of the token's owner.
        repo_type: Kind of the upload.
        token: Access token; by default the one stored by ``hf auth login`` or in ``HF_TOKEN``.
        private: Whether a repository made by this call is private.

    Returns:
        The repository as ``user/name``.

    Raises:
        InputError: If there is no token, the Hub refuses the token, the name or the permission to write, or
            the owner is needed and the Hub cannot be reached.
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
        if isinstance(error, HFValidationError) or is_refusal(error):
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
    subfolders: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> str:
    """Upload an exported folder in one commit; requests that fail are repeated.

    Its own files and those below the named subfolders are uploaded, and no others. Weights of an earlier
    upload with other names, and other files below where these subfolders go, are deleted from the repository,
    so that it holds what the folder holds.

    Args:
        folder: Folder of the export.
        repo_id: ``user/name``; created if absent.
        token: Access token; by default the one stored by ``hf auth login`` or in ``HF_TOKEN``.
        private: Whether a repository made by this call is private.
        revision: Branch of the commit, created if absent; None for the default branch.
        commit_message: First line of the commit.
        subfolders: Folders of the repository by the names of the subfolders that are uploaded there, such as
            ``{"ct2": "ct2", "hf": ""}``, where the empty name is the repository itself.
        stop: No failed request is repeated once this is set.

    Returns:
        The address of the commit.

    Raises:
        InputError: If ``folder`` holds no export.
        UploadError: If the upload fails for whatever reason; the folder is untouched.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    folder = Path(folder)
    subfolders = {EVAL_RESULTS_NAME: EVAL_RESULTS_NAME, **(subfolders or {})}
    files = export_files(folder, subfolders)
    api = HfApi(token=token)
    patient = functools.partial(patiently, action=f"the upload to {repo_id!r}", stop=stop)
    try:
        patient(lambda: api.create_repo(repo_id, private=private, exist_ok=True))
        if revision:
            patient(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))
        there = patient(lambda: api.list_repo_files(repo_id, revision=revision))
        added = [CommitOperationAdd(name, path) for name, path in files.items()]
        for file in added:  # one by one in this thread: the library's pool would outlive it
            patient(
                functools.partial(
                    api.preupload_lfs_files, repo_id, [file], revision=revision, free_memory=False
                )
            )
        deleted = [CommitOperationDelete(name) for name in _stale(there, files, subfolders.values())]
        commit = patient(
            lambda: api.create_commit(
                repo_id, [*added, *deleted], commit_message=commit_message, revision=revision
            )
        )
    except Exception as error:  # a run of many hours must not end in a traceback of the network
        raise _export_is_safe(folder, repo_id, revision, subfolders, error) from error
    return commit.commit_url


def export_files(folder: Path, subfolders: Mapping[str, str]) -> dict[str, Path]:
    """Return the files of an export by their names in a repository.

    Args:
        folder: Folder of the export.
        subfolders: Folders of the repository by the names of subfolders, as :func:`push_to_hub` takes them.

    Raises:
        InputError: If the folder holds no export.
    """
    own = [path for path in folder.glob("*") if path.is_file() and path.name not in _PRIVATE]
    files = {path.name: path for path in own}
    for name, target in subfolders.items():
        below = [path for path in (folder / name).rglob("*") if path.is_file()]
        files |= {
            (PurePosixPath(target) / path.relative_to(folder / name)).as_posix(): path for path in below
        }
    if not any(path.name == "config.json" or path.suffix in _WEIGHT_SUFFIXES for path in files.values()):
        raise InputError(f"{folder} holds no config.json: expected the folder of an export")
    return dict(sorted(files.items()))


def _stale(there: Sequence[str], files: Mapping[str, Path], targets: Collection[str]) -> list[str]:
    """Return the files of a repository that belong to an earlier export."""

    def is_ours(name: str) -> bool:
        if "/" not in name:
            return fnmatch.fnmatch(name, _WEIGHTS)
        return any(name.startswith(f"{target}/") for target in targets)

    return sorted(name for name in there if name not in files and is_ours(name))


def _export_is_safe(
    folder: Path, repo_id: str, revision: str | None, subfolders: Mapping[str, str], error: Exception
) -> UploadError:
    """Return the error of a failed upload, with the commands that repeat it."""
    branch = ["--revision", revision] if revision else []
    excluded = [part for name in ("*/*", *sorted(_PRIVATE)) for part in ("--exclude", name)]
    retries = [["hf", "upload", repo_id, str(folder), *excluded, *branch]]
    for name, target in subfolders.items():
        if (folder / name).is_dir():
            retries.append(["hf", "upload", repo_id, str(folder / name), target or ".", *branch])
    commands = " && ".join(map(shlex.join, retries))
    return UploadError(
        f"could not upload to {repo_id!r} on the Hugging Face Hub ({reason(error)}); "
        f"the export is safe in {folder}, to be uploaded with: {commands}"
    )


def check_hub(
    config: HubConfig, name: str | None, folder: AnyPath, repo_type: Literal["model", "dataset"]
) -> str | None:
    """Return the repository to upload to as ``user/name``, before any work; None if nothing is uploaded.

    Args:
        config: Whether to upload, and how.
        name: Repository as the user gave it; None for one with the name of the folder, of the user of the
            token.
        folder: Folder of the result.
        repo_type: Kind of the result.

    Raises:
        InputError: If the Hub refuses the upload.
    """
    if not config.push_to_hub:
        return None
    if repo_type == "dataset" and isinstance(folder, BucketPath):
        raise InputError(
            f"push_to_hub sends a data set from a folder of this machine, and output_dir is {str(folder)!r}: "
            "leave push_to_hub out, or name a folder here"
        )
    if name is not None and (name.count("/") > 1 or not all(name.split("/"))):
        raise InputError(f"{name!r} is not a repository on the Hugging Face Hub: expected user/name")
    return check_repository(
        name or folder.name, repo_type=repo_type, token=config.hub_token, private=config.hub_private_repo
    )


def upload(
    folder: AnyPath, repo_id: str | None, config: HubConfig, *, subfolders: Mapping[str, str] | None = None
) -> str | None:
    """Upload an export; a failure is logged and not raised, because the export is safe on disk.

    Args:
        folder: Folder of the export, here or in a bucket.
        repo_id: Repository on the Hub, as :func:`check_hub` returns it; None uploads nothing.
        config: Token, branch, and whether a new repository is private.
        subfolders: Folders of the repository by the names of subfolders, as :func:`push_to_hub` takes them.

    Returns:
        The reason why the upload failed; None if it did not fail, or was not asked for.
    """
    if repo_id is None:
        return None
    with local_copy(folder, subfolders=(EVAL_RESULTS_NAME, *(subfolders or ()))) as local:
        return tried(
            lambda: push_to_hub(
                local,
                repo_id,
                token=config.hub_token,
                private=config.hub_private_repo,
                revision=config.hub_revision,
                subfolders=subfolders,
            )
        )


def tried(push: Callable[[], str]) -> str | None:
    """Upload, log the result, and return the reason of a failure; None if there was none."""
    try:
        log.info("uploaded to %s", push())
    except UploadError as error:
        log.error("%s", error)
        return str(error)
    return None
