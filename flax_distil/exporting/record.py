"""The file ``export.json``: which formats an export holds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax_distil.exporting.choices import Choice
from flax_distil.storage.output_dir import make_folder
from flax_distil.storage.paths import AnyPath

RECORD_NAME = "export.json"
"""Name of the record in the folder of an export; a Hugging Face folder alone has none."""


class ExportRecord:
    """Writes the record of an export: with one format into its folder, with several above their folders.

    A record looks like ``{"formats": {"ct2": {"folder": "ct2", "quantization": "int8", "bytes": 39}}}``.
    """

    def __init__(self, folder: AnyPath, choices: Sequence[Choice]):
        """Begin the record of an export into ``folder``; several formats have an empty one from the start."""
        self._folder, self._alone = folder, len(choices) == 1
        self._formats: dict[str, dict[str, Any]] = {}
        if not self._alone:
            make_folder(folder)
            self.write()

    def add(self, choice: Choice, size: int, scratch: Path) -> None:
        """Note a format whose files have ``size`` bytes; one that is alone has its record among them."""
        self._formats[choice.name] = {
            "folder": "." if self._alone else choice.name,
            "quantization": choice.quantization,
            "bytes": size,
        }
        if self._alone and choice.name != "hf":
            (scratch / RECORD_NAME).write_bytes(self._contents())

    def write(self) -> None:
        """Write what was noted above the folders of several formats."""
        if not self._alone:
            (self._folder / RECORD_NAME).write_bytes(self._contents())

    def _contents(self) -> bytes:
        return (json.dumps({"formats": self._formats}, indent=2) + "\n").encode()
