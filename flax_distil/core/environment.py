"""What a command runs on: versions, machine, and the commits of the sources."""

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from flax_distil import __version__
from flax_distil.core.secrets import without_secrets

PACKAGES = (
    "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "tensorstore", "numpy", "grain",
    "datasets", "huggingface-hub", "safetensors", "soundfile", "soxr",
)  # fmt: skip
"""Packages that may change results, besides this one."""

_VARIABLES = ("JAX_", "XLA_", "LIBTPU_", "NVIDIA_TF32", "TPU_ACCELERATOR")
_GIT_SECONDS = 5


def environment() -> dict[str, Any]:
    """Return a description of the machine, the software and the sources, as JSON takes it."""
    return {
        "host": socket.gethostname(),
        "process_id": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": package_versions(),
        "variables": {
            name: without_secrets(value)
            for name, value in sorted(os.environ.items())
            if name.startswith(_VARIABLES)
        },
        "program": sys.argv[0],
        "folder": os.getcwd(),
        "git_commit": git_commit(Path.cwd()),
        "flax_distil_git_commit": git_commit(Path(__file__)),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of this package and of those that may change its results, where installed."""
    found = {"flax_distil": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit(path: Path) -> str | None:
    """Return the commit of the repository that a folder is in, or that holds a file; None without one.

    A commit whose files have been changed since is followed by "+changes".
    """
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and _git(folder, "ls-files", "--error-unmatch", path.name) is None:
        return None  # installed below a repository, but no part of it
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if changes else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
