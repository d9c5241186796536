"""Upload of a pseudo-labelled data set to the Hugging Face Hub, beside the splits that are there."""

import functools
import json
from pathlib import Path
from typing import Any

from flax_distil.checkpoints.hub.config import HubConfig
from flax_distil.checkpoints.hub.upload import tried
from flax_distil.checkpoints.hub.upload_data_set import push_data_set
from flax_distil.pseudo_labeling.dataset_card import data_pattern
from flax_distil.pseudo_labeling.merge_cards import merge_cards
from flax_distil.pseudo_labeling.output import CARD_NAME, INDEX_NAME, SUMMARY_NAME, THROUGHPUT_NAME
from flax_distil.pseudo_labeling.splits import SplitName
from flax_distil.storage.resumable_output import json_text

RECORDS_NAME = "labelling"
"""Folder on the Hub of what is known of each split: settings, counts, files."""


def upload_labels(folder: Path, repo_id: str, config: HubConfig) -> str | None:
    """Upload a data set; a failure is logged in one sentence, never raised: the work is safe on disk.

    Splits of other names, and the rest of the card, stay in the repository.

    Args:
        folder: Folder of the finished data set.
        repo_id: Repository on the Hub, of ``check_hub``.
        config: Token, and whether a new repository is private.

    Returns:
        Why the upload failed, None if it did not.
    """
    index, summary, throughput = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in (INDEX_NAME, SUMMARY_NAME, THROUGHPUT_NAME)
    )
    splits = {
        SplitName(config=found["config"], split=found["split"]): found for found in summary["splits"].values()
    }
    documents = {
        f"{RECORDS_NAME}/{split}.json": _record(str(split), index, found, throughput)
        for split, found in splits.items()
    }
    card = (folder / CARD_NAME).read_text(encoding="utf-8")
    return tried(
        lambda: push_data_set(
            folder,
            repo_id,
            patterns=[data_pattern(split) for split in splits],
            documents=documents,
            make_card=functools.partial(merge_cards, ours=card),
            token=config.hub_token,
            private=config.hub_private_repo,
            revision=config.hub_revision,
        )
    )


def _record(split: str, index: dict[str, Any], summary: dict[str, Any], throughput: dict[str, Any]) -> str:
    files = [file for file in index["files"] if file["part"] == split]
    record = {**index, "files": files, "summary": summary, "throughput of the run": throughput}
    return json_text(record)
