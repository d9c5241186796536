"""Paths as users write them."""

import os
from pathlib import Path


def user_path(name: str | Path) -> Path:
    """Return a path with ``~`` and ``~name`` replaced by home folders; names of unknown users stay."""
    return Path(os.path.expanduser(name))  # Path.expanduser fails for nobody's
