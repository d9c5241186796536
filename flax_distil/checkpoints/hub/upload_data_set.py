"""Upload parts of a data set to the Hugging Face Hub."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from flax_distil.checkpoints.hub.download import reason
from flax_distil.checkpoints.hub.retries import UploadError, patiently
from flax_distil.core.errors import InputError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_CARD = "README.md"

_FORMER_RECORD = "index.json"
"""File with the record of an upload in the older format, which had one split."""


def push_data_set(
    folder: str | Path,
    repo_id: str,
    *,
    patterns: Sequence[str],
    documents: Mapping[str, str],
    make_card: Callable[[str | None], str],
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Upload parts of a data set to a repository that may have others; existing files are not sent again.

    Args:
        folder: Folder of the data set.
        repo_id: ``user/name``; created if absent.
        patterns: Patterns of the files to upload, relative to the folder. Files of an earlier upload that
            match a pattern and are not in the folder are deleted from the repository.
        documents: Contents of further files by name; the names are the same in every upload of these parts.
        make_card: Function that makes the card from the existing one; None where there is none.
        token: Access token; by default the one stored by ``hf auth login`` or in ``HF_TOKEN``.
        private: Whether a repository made by this call is private.
        revision: Branch of the commit, created if absent; None for the default branch.

    Returns:
        The address of the commit.

    Raises:
        UploadError: If the upload fails for whatever reason; the folder is untouched.
    """
    from huggingface_hub import HfApi

    folder, api = Path(folder), HfApi(token=token)
    patient = functools.partial(patiently, action=f"the upload to {repo_id!r}")
    try:
        patient(lambda: api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True))
        if revision:
            patient(lambda: api.create_branch(repo_id, repo_type="dataset", branch=revision, exist_ok=True))
        target = _Target(api, repo_id, revision)
        # Again as a whole: where another upload came between, its card is read and added to.
        return patient(lambda: _commit_data_set(target, folder, patterns, documents, make_card))
    except UploadError:
        raise
    except InputError as error:
        raise UploadError(
            f"could not upload to data set {repo_id!r} on the Hugging Face Hub: {error}; mend it there. "
            f"The labels are safe in {folder}, and the same command uploads them"
        ) from error
    except Exception as error:  # as in push_to_hub
        raise UploadError(
            f"could not upload to data set {repo_id!r} on the Hugging Face Hub ({reason(error)}); "
            f"it is safe in {folder}, and the same command uploads it without labelling again"
        ) from error


@dataclasses.dataclass(frozen=True)
class _Target:
    """A branch of a repository of a data set."""

    api: "HfApi"
    repo_id: str
    revision: str | None

    def contents(self) -> tuple[str, set[str], str | None]:
        """Return the latest commit, the names of its files, and its card, None if it has none."""
        info = self.api.dataset_info(self.repo_id, revision=self.revision)
        there = {file.rfilename for file in info.siblings or ()}
        if _CARD not in there:
            return str(info.sha), there, None
        with tempfile.TemporaryDirectory() as scratch:
            path = self.api.hf_hub_download(
                self.repo_id, _CARD, repo_type="dataset", revision=info.sha, local_dir=scratch
            )
            return str(info.sha), there, Path(path).read_text(encoding="utf-8")


def _commit_data_set(
    target: _Target,
    folder: Path,
    patterns: Sequence[str],
    documents: Mapping[str, str],
    make_card: Callable[[str | None], str],
) -> str:
    """Add, replace and delete files in one commit, whose parent is the commit whose card was read."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    parent, there, card = patiently(target.contents, action=f"reading {target.repo_id!r}")
    sent: dict[str, Any] = {
        path.relative_to(folder).as_posix(): path for pattern in patterns for path in folder.glob(pattern)
    }
    stale = [
        name
        for name in there - sent.keys()
        if any(PurePosixPath(name).match(pattern) for pattern in patterns)
    ]
    if stale and not there & {*documents, _FORMER_RECORD}:
        raise UploadError(
            f"data set {target.repo_id!r} on the Hugging Face Hub holds {min(stale)!r}, which "
            "pseudo-labelling did not write: name another repository, or delete it there; the labels are "
            f"safe in {folder}"
        )
    sent |= {name: text.encode() for name, text in {**documents, _CARD: make_card(card)}.items()}
    commit = target.api.create_commit(
        target.repo_id,
        [
            *(CommitOperationAdd(name, content) for name, content in sorted(sent.items())),
            *(CommitOperationDelete(name) for name in sorted(stale)),
        ],
        commit_message="Upload pseudo-labels",
        repo_type="dataset",
        parent_commit=parent,
        revision=target.revision,
    )
    return commit.commit_url
