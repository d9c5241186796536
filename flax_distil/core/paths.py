"""Paths as users write them."""

import os
from pathlib import Path


def user_path(name: str | Path) -> Path:
    """Return a path in which ``~`` and ``~name`` stand for home folders; unknown users stay as they are."""
    return Path(os.path.expanduser(name))  # Path.expanduser fails for nobody's
