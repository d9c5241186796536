"""Check that all processes see the folder that process 0 writes to."""

import secrets
import time

import jax

from flax_distil.core.errors import InputError
from flax_distil.parallel.processes import all_gather_object, raise_on_all_hosts
from flax_distil.storage.paths import AnyPath, write_whole

_PATIENCE_SECONDS = 10.0
"""Time after which a file that process 0 wrote must be seen; network file systems remember listings."""


def check_shared_folder(folder: AnyPath) -> None:
    """Check that all processes see what process 0 writes; all must call this.

    Args:
        folder: The output folder, which exists for process 0.

    Raises:
        InputError: If a process does not, on all processes.
    """
    if jax.process_count() == 1:
        return
    leads = jax.process_index() == 0
    token = folder / f".shared-{all_gather_object(secrets.token_hex(8))[0]}"
    raise_on_all_hosts(lambda: write_whole(token, "") if leads else None)
    try:
        raise_on_all_hosts(lambda: _wait_for(token, folder))
    finally:
        if leads:
            token.unlink(missing_ok=True)


def _wait_for(token: AnyPath, folder: AnyPath) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not token.exists():
        if time.monotonic() > end:
            raise InputError(
                f"output_dir {str(folder)!r} is not the folder that process 0 writes to: name one that all "
                "processes share, or one in a bucket"
            )
        time.sleep(0.2)
