"""The JSON document of a training checkpoint, whose digest shows when it is damaged."""

import hashlib
import json
from typing import Any

FORMAT = 2
"""Version of the document: it is 2 since checkpoints have checksums."""


class DamagedCheckpoint(Exception):
    """A training checkpoint cannot be used; the message says in a few words what is wrong with it."""


def seal(contents: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a checkpoint: its contents as JSON holds them, and their digest.

    Raises:
        TypeError: If JSON cannot hold the contents.
    """
    plain = json.loads(json.dumps(contents))
    return {"format": FORMAT, "digest": _digest(plain), "contents": plain}


def unseal(document: Any) -> dict[str, Any]:
    """Return the contents of a document.

    Raises:
        DamagedCheckpoint: If the document is not what :func:`seal` returned.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DamagedCheckpoint("its description is damaged, or another version of flax-distil wrote it")
    contents = document.get("contents")
    if not isinstance(contents, dict) or document.get("digest") != _digest(contents):
        raise DamagedCheckpoint("its description does not have its digest")
    return contents


def differing(saved: dict[str, Any], found: dict[str, Any], *, limit: int = 5) -> list[str]:
    """Return sentences' ends such as ``kernel (saved float32[3], expected nothing)`` for unequal entries.

    Args:
        saved: Entries of the checkpoint by the path of a leaf.
        found: Entries that are expected.
        limit: Number of entries to name; how many more there are is told instead of the others.
    """
    paths = [path for path in saved | found if saved.get(path) != found.get(path)]
    named = [
        f"{path} (saved {saved.get(path, 'nothing')}, expected {found.get(path, 'nothing')})"
        for path in paths[:limit]
    ]
    return named + ([f"{len(paths) - limit} more"] if len(paths) > limit else [])


def _digest(contents: Any) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
