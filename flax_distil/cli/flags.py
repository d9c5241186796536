"""Flags from a configuration dataclass: names and types from its fields, help from its docstring."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

Config = TypeVar("Config")


def read_flags(config_class: type[Config], arguments: Sequence[str], *, program: str) -> Config:
    """Parse flags (and ``--config`` files) into a configuration.

    A boolean flag without a value means true. A list of files (``files`` of transcribe) is
    positional.

    Raises:
        InputError: from the configuration's own checks.
        SystemExit: after ``--help`` (0), or for a flag that is unknown or of the wrong type (2).
    """
    from jsonargparse import ArgumentParser

    fields = {field.name: field for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    parser = ArgumentParser(prog=program, description=(config_class.__doc__ or "").split("\n")[0])
    parser.add_argument("--config", action="config", help="YAML or JSON file of flags")
    positional = "files" in fields
    if positional:
        parser.add_argument("files", nargs="*", help="Audio files.")
    parser.add_class_arguments(
        config_class, as_group=False, fail_untyped=False, skip={"files"} if positional else set()
    )
    values = parser.parse_args(_with_values(fields, arguments)).as_dict()
    values.pop("config", None)
    return config_class(**values)


def _with_values(fields: dict[str, Any], arguments: Sequence[str]) -> list[str]:
    """Give boolean flags that stand alone the value ``true``."""
    completed: list[str] = []
    for position, argument in enumerate(arguments):
        completed.append(argument)
        field = fields.get(argument.removeprefix("--")) if argument.startswith("--") else None
        if field is not None and field.type in (bool, "bool"):
            following = arguments[position + 1].lower() if position + 1 < len(arguments) else ""
            if following not in ("true", "false", "yes", "no"):
                completed.append("true")
    return completed
