"""Whether a disk has room for an export, asked before anything is written."""

import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from flax_distil.core.errors import InputError
from flax_distil.exporting.choices import Choice
from flax_distil.exporting.source import ExportSource
from flax_distil.storage.paths import AnyPath

_SMALL_FILES = 10 * 10**6
"""Bytes of tokenizer, configurations and headers of one format."""


def bits_per_weight(quantization: str) -> int:
    """Return the bits that a weight takes, scales left out.

    It is the first number in the name (``q5_0``: 5), and the sum of both where a folder has several files
    (``fp32+q8``: 40).
    """
    found = [re.search(r"\d+", part) for part in quantization.split("+")]
    return sum(32 if number is None else int(number[0]) for number in found)


def check_room(source: ExportSource, choices: Sequence[Choice], folder: AnyPath) -> None:
    """Compare the size of all formats with what the disk has free; a bucket has room.

    Args:
        source: The checkpoint.
        choices: The formats.
        folder: Folder of the export, which need not be there yet.

    Raises:
        InputError: If the disk is too full.
    """
    if not isinstance(folder, Path):
        return
    weights = sum(map(math.prod, source.shapes.values()))
    needed = sum(weights * bits_per_weight(choice.quantization) // 8 + _SMALL_FILES for choice in choices)
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        names = ", ".join(f"{choice.name} ({choice.quantization})" for choice in choices)
        raise InputError(
            f"exporting {names} into {folder} needs about {math.ceil(needed / 1e6)} MB, and its disk has "
            f"{free // 10**6} MB free: make room, choose another folder, or fewer formats"
        )
