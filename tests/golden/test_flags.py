"""The flags of every command, with their types and defaults, are those of the golden file.

The flags are read from the argument parser that each command builds, so they do not depend on how the
configurations are declared. ``python -m tests.golden.test_flags`` rewrites the golden file.
"""

import argparse
import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from flax_distil.cli.main import COMMANDS, main

GOLDEN = Path(__file__).with_name("flags.json")


def read_parser(command: str) -> argparse.ArgumentParser:
    """Return the parser that a command builds, caught where it would print its help."""
    caught: list[argparse.ArgumentParser] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "print_help", lambda self, *_: caught.append(self))
        assert main([*command.split(), "--help"]) == 0
    return caught[-1]


def describe_type(hint: Any) -> str:
    """Write a type independently of how it is spelled: ``int | None``, ``list[str]``."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        names = {describe_type(part) for part in parts}
        return " | ".join([*sorted(names - {"None"}), *(["None"] if "None" in names else [])])
    if origin is tuple:
        return f"list[{describe_type(parts[0])}]"
    if origin is typing.Literal:
        return f"one of {sorted(map(str, parts))}"
    if hint is type(None):
        return "None"
    if hint in (None, str):
        return "str"
    name = getattr(origin or hint, "__name__", str(hint))
    return f"{name}[{', '.join(map(describe_type, parts))}]" if parts else name


def describe_flag(action: argparse.Action) -> dict[str, Any]:
    leaf = getattr(action, "leaf", None)  # absent where a flag is no setting of the configuration
    own = "str" if action.nargs is None else "bool"
    name = own if leaf is None else describe_type(leaf.hint)
    if name.startswith("list["):  # whether it may be null is told by the default
        name = name.removesuffix(" | None")
    return {
        "type": name,
        "choices": sorted(map(str, action.choices)) if action.choices else None,
        "default": action.default if leaf is None else None if leaf.required else leaf.default,
        "required": action.required if leaf is None else leaf.required,
    }


def describe_command(command: str) -> dict[str, dict[str, Any]]:
    """Return the flags of a command by their full names, those without dashes being positional."""
    parser, flags = read_parser(command), {}
    for action in parser._actions:
        if action.default is argparse.SUPPRESS:  # --help, and the parser's own flag for completion
            continue
        name, *aliases = action.option_strings or [action.dest]
        flags[name] = {"aliases": sorted(aliases), **describe_flag(action)}
    return dict(sorted(flags.items()))


def describe_all() -> dict[str, Any]:
    return {command: describe_command(command) for command in COMMANDS}


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


def test_the_commands_are_the_golden_ones(golden):
    assert list(COMMANDS) == list(golden)


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_types_and_defaults_are_the_golden_ones(command, golden):
    found = json.loads(json.dumps(describe_command(command)))
    assert found.keys() == golden[command].keys()
    assert {name: flag for name, flag in found.items() if flag != golden[command][name]} == {}
    numbers = {name: type(flag["default"]) for name, flag in found.items()}
    assert numbers == {name: type(flag["default"]) for name, flag in golden[command].items()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_golden_flag_is_a_key_of_a_yaml_file(command, golden, tmp_path, capsys):
    """A file of all of them and of one unknown key is refused for the unknown key."""
    flags = {name.removeprefix("--"): flag for name, flag in golden[command].items()}
    values = {
        name: "x" if flag["required"] else flag["default"]
        for name, flag in flags.items()
        if name not in ("config", "quiet")
    }
    path = tmp_path / "flags.yaml"
    path.write_text(yaml.safe_dump({**values, "not_a_flag": 1}, sort_keys=False))
    assert main([*command.split(), f"--config={path}"]) == 2
    assert "'not_a_flag' is not accepted" in capsys.readouterr().err


if __name__ == "__main__":
    commands = [
        f" {json.dumps(command)}: {{\n"
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps(flag)}" for name, flag in flags.items())
        for command, flags in describe_all().items()
    ]
    GOLDEN.write_text("{\n" + "\n },\n".join(commands) + "\n }\n}\n")
