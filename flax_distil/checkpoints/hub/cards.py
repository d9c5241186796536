"""What the cards of models and data sets have in common: names as text, tables, licenses, ids of the Hub."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax_distil.checkpoints.hub.download import OPENAI_MODELS
from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.core.secrets import without_secrets
from flax_distil.storage.remote_files import is_remote
from flax_distil.text.languages import DETECT_LANGUAGE, language_code

log = logging.getLogger(__name__)

CARD_NAME = "README.md"

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_METADATA = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_REQUEST_SECONDS = 10.0


def as_text(name: str) -> str:
    """Return a name in one line, with nothing in it that Markdown or HTML would take for markup."""
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", plain_text(name))


def plain_text(name: str) -> str:
    """Return a name in one line and without secrets, for metadata."""
    return " ".join(without_secrets(name).split())


def iso_language(name: str | None) -> str | None:
    """Return the code of a language for metadata; None where there is none."""
    try:
        return None if name in (None, DETECT_LANGUAGE) else language_code(str(name))
    except InputError:
        return None


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, whose cells are Markdown; "" without rows."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def hub_id(name: str | None) -> str | None:
    """Return the id on the Hub that a model or data set is named by; None if it lies somewhere else.

    Args:
        name: Name as the user gave it: an id, a name of openai/whisper, a path or an address.
    """
    if name is None or is_remote(name) or user_path(name).exists():
        return None
    name = OPENAI_MODELS.get(name, name)
    return name if _HUB_ID.fullmatch(name) else None


def short_name(name: str) -> str:
    """Return a name that tells of no folder: the last part of a path or an address, or else the name."""
    if is_remote(name) or user_path(name).exists():
        return Path(without_secrets(name).partition("?")[0].rstrip("/")).name
    return OPENAI_MODELS.get(name, name)


def linked(name: str, *, repo_type: str = "model") -> str:
    """Return a name as Markdown, with a link if it is an id on the Hub."""
    found = hub_id(name)
    if found is None:
        return as_text(short_name(name))
    below = "datasets/" if repo_type == "dataset" else ""
    return f"[{as_text(found)}](https://huggingface.co/{below}{found})"


def split_card(card: str) -> tuple[str, str]:
    """Return the metadata of a card as YAML, "" if it has none, and its text."""
    found = _METADATA.match(card)
    return (found[1], card[found.end() :]) if found else ("", card)


def data_set_license(name: str) -> str | None:
    """Return the license that the card of a data set names; None if there is none or it cannot be read.

    Args:
        name: Data set as the user named it, a folder of this machine or an id on the Hub.
    """
    if is_remote(name):
        return None
    try:
        metadata = _local_metadata(user_path(name)) if hub_id(name) is None else _hub_metadata(name)
    except Exception as error:  # a license that is not known ends nothing
        log.debug("the card of %s cannot be read: %s", plain_text(name), plain_text(str(error)))
        return None
    found = metadata.get("license")
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, str) else None


def _local_metadata(folder: Path) -> Mapping[str, Any]:
    import yaml

    own = folder if folder.is_dir() else folder.parent
    metadata, _ = split_card((own / CARD_NAME).read_text(encoding="utf-8"))
    found = yaml.safe_load(metadata)
    return found if isinstance(found, dict) else {}


def _hub_metadata(name: str) -> Mapping[str, Any]:
    from huggingface_hub import HfApi

    card = HfApi().dataset_info(name, timeout=_REQUEST_SECONDS).card_data
    return {} if card is None else card.to_dict()
