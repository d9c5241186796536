"""Processes of one run must be started with the same settings."""

import json
from collections.abc import Mapping
from typing import Any

import jax

from flax_distil import __version__
from flax_distil.core.errors import InputError
from flax_distil.parallel.processes import all_gather_object

_OF_A_PROCESS = {
    "coordinator_address", "num_processes", "process_id", "initialization_timeout_seconds",
    "heartbeat_timeout_seconds", "stall_timeout_minutes", "dataset_cache_dir", "cache_dir",
    "dataloader_num_workers", "quiet",
}  # fmt: skip
"""Settings that may differ: where a process is, its own folders and threads, and what it reports."""


def check_same_settings(settings: Mapping[str, Any]) -> None:
    """Compare the settings of all processes, which must all call this.

    Args:
        settings: Settings by name, or other things that must be the same; compared as JSON.

    Raises:
        InputError: On all processes, if a setting differs between two.
    """
    versions = {"the version of flax_distil": __version__, "the version of JAX": jax.__version__}
    chosen = {name: value for name, value in settings.items() if name not in _OF_A_PROCESS} | versions
    all_chosen = all_gather_object(json.loads(json.dumps(chosen, default=str)))
    mine = all_chosen[jax.process_index()]
    for number, other in enumerate(all_chosen):
        for name in {**mine, **other}:
            here, there = mine.get(name), other.get(name)
            if here != there:
                raise InputError(
                    f"process {number} has {name} {there!r}, and process {jax.process_index()} has {here!r}: "
                    "start all with the same flags and data"
                )
