"""Keep compiled programs on disk, so that the next process does not compile them again."""

import functools
import hashlib
import logging
import os
import platform
from pathlib import Path

import jax

from flax_distil.core.errors import InputError
from flax_distil.storage.bucket_path import SCHEMES, BucketPath
from flax_distil.storage.paths import AnyPath, output_path
from flax_distil.storage.remote_files import is_remote
from flax_distil.storage.transports import protocol_of

log = logging.getLogger(__name__)

VARIABLE = "FLAX_DISTIL_COMPILATION_CACHE"
"""Environment variable that names the folder of the programs; "off" keeps none."""

_PATIENCE_SECONDS = 10.0
"""Time after which a bucket that cannot be written to is not used."""

MIN_COMPILE_SECONDS = 0.1
"""Programs that compile faster than this are not kept."""


def use_compilation_cache() -> AnyPath | None:
    """Keep compiled programs from now on, unless JAX already has a cache folder, and return the folder.

    ``FLAX_DISTIL_COMPILATION_CACHE`` names the folder, here or in a bucket; by default it is
    ``flax_distil/compiled`` in the cache folder of the user. It has a subfolder for each kind of machine: a
    program for one CPU may contain instructions that another CPU lacks. Any number of processes may share the
    folder, and it may be deleted at any time. If it cannot be written to, a warning is logged once and
    nothing is kept.
    """
    given = jax.config.values["jax_compilation_cache_dir"]
    if given:
        return BucketPath(given) if protocol_of(given) in SCHEMES else Path(given)
    wanted = os.environ.get(VARIABLE, "")
    if wanted.lower() in ("off", "false", "0", "no"):
        return None
    folder = _writable_bucket(wanted) if is_remote(wanted) else _writable(_local_cache(wanted))
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    if isinstance(folder, BucketPath):  # XLA's own caches are local files
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    return folder


@functools.cache
def _writable_bucket(name: str) -> BucketPath | None:
    try:
        folder = output_path(name, flag=VARIABLE)
        assert isinstance(folder, BucketPath)
        folder = folder / _machine()
        (folder / ".writable").write_bytes(b"", patience_seconds=_PATIENCE_SECONDS)
    except InputError as error:
        log.warning("compiled programs are not kept: %s; or set %s to off", error, VARIABLE)
        return None
    return folder


@functools.cache  # so that the warning is logged only once
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


def _local_cache(wanted: str) -> Path:
    if wanted:
        return Path(wanted).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flax_distil" / "compiled"


def _machine() -> str:
    """Return a name for the kind of CPU and its instructions, on which a CPU program depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        kind = [platform.processor()]
    return f"{platform.machine()}-{hashlib.sha256(repr(kind).encode()).hexdigest()[:12]}"
