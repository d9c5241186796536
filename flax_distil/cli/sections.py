"""Sections of a file of flags: one file for several commands, each of which reads its own flags.

A file has sections if its outermost names are those of commands::

    pseudo-label: {language: en}
    distil: {language: en, max_steps: 80000}
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.core.nested import flatten_names, leaves

LENDERS = {"plan": "distil", "data inspect": "distil"}
"""Commands that also read another one's section, for the flags that both have; their own comes second."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sections:
    """What one command reads of a file with sections.

    Attributes:
        command: The command.
        commands: All commands, whose names sections may have.
        configs: Configuration of each section that the command reads, in the order of reading.
    """

    command: str
    commands: Collection[str]
    configs: Mapping[str, type]

    def flatten(self, config_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the flags of a file by their flat names; without sections, all are the command's.

        Args:
            config_class: Configuration of the command.
            values: Contents of the file.

        Raises:
            InputError: If the file has sections but none for the command, or a flag is unknown.
        """
        if not any(name in self.commands for name in values):
            return flatten_names(config_class, values)
        for name, section in values.items():
            if name not in self.commands or not isinstance(section, Mapping):
                raise InputError(
                    f"{name!r} is no section: expected the name of a command, and its flags below it"
                )
        if not any(name in values for name in self.configs):
            raise InputError(f"there is no section for {self.command!r}, only for {', '.join(values)}")
        accepted = {leaf.name for leaf in leaves(config_class)}
        found: dict[str, Any] = {}
        for name, config in self.configs.items():
            flags = flatten_names(config, values.get(name, {}))
            found |= {flag: value for flag, value in flags.items() if flag in accepted}
        return found
