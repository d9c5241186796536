"""Upload of a pseudo-labelled data set to the Hugging Face Hub."""

from pathlib import Path

from flax_distil.weights import push_data_set
from flax_distil.workflows.hub_config import HubConfig
from flax_distil.workflows.label_store import RESULTS
from flax_distil.workflows.outputs import tried


def upload_labels(folder: Path, repo_id: str, config: HubConfig) -> str | None:
    """Upload a data set; a failure is logged in one sentence, never raised: the work is safe on disk.

    Args:
        folder: the finished data set.
        repo_id: repository on the Hub, of ``HubConfig.repository``.
        config: token, and whether a new repository is private.

    Returns:
        Why the upload failed, None if it did not.
    """
    return tried(
        lambda: push_data_set(
            folder, repo_id, patterns=RESULTS, token=config.hub_token, private=config.hub_private_repo
        )
    )
