"""One of several processes; ``test_processes.py`` starts them and reads what each found."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from flax_distil.core.errors import InputError
from flax_distil.parallel import shared_folder
from flax_distil.parallel.config import ProcessConfig
from flax_distil.parallel.processes import all_gather_object, initialize_distributed, raise_on_all_hosts
from flax_distil.parallel.same_settings import check_same_settings
from flax_distil.parallel.shared_folder import check_shared_folder


def message_of(function: Callable[[], Any]) -> str:
    try:
        return f"returned {function()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def agree() -> dict[str, Any]:
    """Gather values of different sizes, then fail on one process or another."""
    mine = jax.process_index()
    folder = Path(all_gather_object(tempfile.mkdtemp())[0])
    own = folder / str(mine)
    own.mkdir()
    shared_folder._PATIENCE_SECONDS = 0.3

    def fail_on(number: int, error: type[Exception]) -> Callable[[], int]:
        def function() -> int:
            if mine == number:
                raise error("the disk is full")
            return mine

        return function

    return {
        "devices": [jax.device_count(), jax.local_device_count()],
        "gathered": [
            all_gather_object(mine),
            all_gather_object({"text": "ß" * 10**mine}),
            all_gather_object(None),
        ],
        "succeeded": message_of(lambda: raise_on_all_hosts(lambda: mine)),
        "bad_input": message_of(lambda: raise_on_all_hosts(fail_on(1, InputError))),
        "broken": message_of(lambda: raise_on_all_hosts(fail_on(2, OSError))),
        "same": message_of(lambda: check_same_settings({"seed": 1, "process_id": mine})),
        "other_seed": message_of(lambda: check_same_settings({"seed": 1 if mine else 2, "mesh": ("a",)})),
        "shared": message_of(lambda: check_shared_folder(folder)),
        "own_folders": message_of(lambda: check_shared_folder(own)),
        "joined_again": message_of(lambda: initialize_distributed(ProcessConfig())),
    }


def main() -> int:
    task, settings = sys.argv[1], json.loads(sys.argv[2])
    try:
        initialize_distributed(ProcessConfig(**settings))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if task == "agree":
        print(json.dumps(agree()))
    if task == "be_stopped":
        print(json.dumps(all_gather_object(jax.process_index())), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        print("still here")
    return 0


if __name__ == "__main__":
    sys.exit(main())
