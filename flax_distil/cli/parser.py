"""Flags from configuration classes: names and types from the fields, help from the docstrings."""

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from jsonargparse import ArgumentParser

from flax_distil.core import InputError

Config = TypeVar("Config")


def parse_config(
    config_class: type[Config],
    argv: Sequence[str],
    *,
    command: str,
    positional: str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Config:
    """Make a configuration of flags and of the file that ``--config`` names.

    Flags win over the file. A switch may stand alone (``--push_to_hub``) or with its value;
    the values of a list may stand one after the other (``--decoder_layer_indices 0 3``).

    Args:
        config_class: frozen dataclass whose docstring has an ``Attributes:`` section.
        argv: the flags.
        command: name of the command, for the help.
        positional: field that takes the arguments without a flag; a list.
        aliases: other names of fields.

    Returns:
        The configuration, checked by its class.

    Raises:
        InputError: if a flag is unknown or missing, or has a value of another type.
        SystemExit: after ``--help`` was printed.
    """
    # No --print_config: a configuration that is printed is not one that was checked.
    parser = ArgumentParser(
        prog=f"flax-distil {command}",
        description=(config_class.__doc__ or "").strip().splitlines()[0],
        exit_on_error=False,
        print_config=None,
    )
    parser.add_argument(
        "--config", action="config", help="YAML or JSON file of flags; flags on the command line win."
    )
    parser.add_class_arguments(config_class, as_group=False, skip={positional} if positional else set())
    if positional:
        parser.add_argument(positional, nargs="*", type=str, help="Files to work on.")
    try:
        namespace = parser.parse_args(_normalised(config_class, argv, aliases or {}))
    except argparse.ArgumentError as error:
        raise InputError(f"{_sentence(str(error))} (flax-distil {command} --help lists the flags)") from error
    values = {field.name: getattr(namespace, field.name) for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    return config_class(**values)


def _normalised(config_class: type, argv: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """Write flags the way the parser takes them, files first so that flags win over them."""
    hints = typing.get_type_hints(config_class)
    files: list[str] = []
    flags: list[str] = []
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        name = f"--{aliases.get(name[2:], name[2:])}" if name.startswith("--") else name
        values = [value] if equals else []
        hint = hints.get(name[2:]) if name.startswith("--") else None
        if name == "--config":
            files += [name, *(values or rest[:1])]
            rest = rest if equals else rest[1:]
        elif hint is bool and not equals and (not rest or rest[0].lower() not in ("true", "false")):
            flags.append(f"{name}=true")
        elif _is_list(hint) and not equals:
            while rest and not rest[0].startswith("--"):
                values.append(rest.pop(0))
            flags.append(f"{name}={_list_literal(values)}")
        else:
            flags.append(name + equals + value)
    return files + flags


def _list_literal(values: Sequence[str]) -> str:
    """Return ``[0,3]`` for the values ``0 3``; a list written as one stays as it is."""
    if len(values) == 1 and values[0][:1] in "[n":
        return values[0]
    return f"[{','.join(values)}]"


def _is_list(hint: Any) -> bool:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return any(typing.get_origin(option) is list for option in options)


def _sentence(message: str) -> str:
    """Return the parser's message, which lists every type it tried, as one sentence."""
    lines = [line.strip() for line in message.splitlines()]
    key = re.match(r'Parser key "(.+?)":(.*)', lines[0])
    if key is None:
        return lines[0].rstrip(".")
    given = next((line.partition(": ")[2] for line in lines if line.startswith("Given value: ")), None)
    expected = re.findall(r"Expected an? <class '(\w+)'>", message)
    wanted = ["nothing" if name == "NoneType" else name for name in expected]
    if given is None:
        given = message.partition("Got value: ")[2] or None
    if given is None or not wanted:
        return f"--{key[1]}: {' '.join([key[2].strip(), *lines[1:]]).strip()}".rstrip(".")
    return f"--{key[1]} cannot be {given!r}: expected {' or '.join(dict.fromkeys(wanted))}"
