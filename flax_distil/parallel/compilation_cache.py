"""Compiled programs are kept on disk, so that the next process need not compile them again."""

import functools
import hashlib
import logging
import os
import platform
from pathlib import Path

import jax

log = logging.getLogger(__name__)

VARIABLE = "FLAX_DISTIL_COMPILATION_CACHE"
"""Where programs are kept; "off" keeps none."""

MIN_COMPILE_SECONDS = 0.2
"""What compiles faster is not kept."""


def use_compilation_cache() -> Path | None:
    """Keep compiled programs from now on, unless JAX was told already where to, and return the folder.

    It is what ``FLAX_DISTIL_COMPILATION_CACHE`` names, by default ``flax_distil/compiled`` in the user's
    cache folder, and in it a folder for machines of this kind: a program for a CPU may hold instructions
    that another has not. Any number of processes may share it, and it may be deleted at any time. Where it
    cannot be written to, a warning is logged once and nothing is kept.
    """
    given = jax.config.values["jax_compilation_cache_dir"]
    if given:
        return Path(given)
    wanted = os.environ.get(VARIABLE, "")
    if wanted.lower() in ("off", "false", "0", "no"):
        return None
    folder = _writable(Path(wanted).expanduser() if wanted else _user_cache())
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    return folder


@functools.cache  # a folder that cannot be written to is told of once
def _writable(parent: Path) -> Path | None:
    folder = parent.absolute() / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "it may not be written to")
    except OSError as error:
        log.warning(
            "compiled programs are not kept in %s: %s; name another folder in %s, or set it to off",
            folder,
            (error.strerror or str(error)).lower(),
            VARIABLE,
        )
        return None
    return folder


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flax_distil" / "compiled"


def _machine() -> str:
    """Name what a CPU program depends on: the kind of CPU and its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        kind = [platform.processor()]
    return f"{platform.machine()}-{hashlib.sha256(repr(kind).encode()).hexdigest()[:12]}"
