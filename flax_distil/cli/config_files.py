"""Read files of flags: YAML or JSON files that people write, within limits of size and depth."""

import json
import os
import stat
import typing
from pathlib import Path
from typing import Any

from flax_distil.cli.recipes import PREFIX, read_recipe
from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path

MOST_BYTES = 1 << 20
"""Maximum size of a file of flags."""

DEEPEST = 6
"""Maximum depth of a file of flags; all configurations are less deep."""


def read_config_file(name: str) -> dict[str, Any]:
    """Return the flags in a file, by name.

    Values are texts, numbers, booleans, ``null``, and lists or mappings of these. YAML aliases are refused,
    because a few of them can stand for more data than the memory holds.

    Args:
        name: Path of a YAML file, or of a JSON file whose name ends in ``.json``; or ``recipe:`` and the name
            of a recipe.

    Raises:
        InputError: If the file cannot be read within these limits.
    """
    try:
        is_recipe = name.startswith(PREFIX)
        text = read_recipe(name.removeprefix(PREFIX)) if is_recipe else _text(user_path(name))
        values = _of_json(text) if name.endswith(".json") else _of_yaml(text)
        if not isinstance(values, dict):
            raise ValueError(f"it holds {_kind(values)}, not flags as 'name: value'")
        for key, value in values.items():
            _check_entry(key, value)
    except OSError as error:
        raise InputError(f"--config: {name!r} cannot be read: {error.strerror or error}") from error
    except InputError as error:
        raise InputError(f"--config: {error}") from error
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "its values are nested too deeply"
        raise InputError(f"--config: {name!r} cannot be used: {reason}") from error
    return values


def _text(path: Path) -> str:
    # Opening a named pipe would wait; with O_NONBLOCK it does not, and the pipe is refused below.
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(opened, "rb") as file:
        kind = os.fstat(opened).st_mode
        if not stat.S_ISREG(kind):
            raise ValueError("it is a folder" if stat.S_ISDIR(kind) else "it is not a regular file")
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is longer than {MOST_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from error


def _of_json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None) if len(names) < 1000 else None
        if twice is not None:
            raise ValueError(f"{twice!r} is given twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} in line {error.lineno}") from error


def _of_yaml(text: str) -> Any:
    import yaml

    try:
        _check_yaml(text)
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ValueError(f"it is not YAML: {problem}{place}") from error


def _loader() -> Any:
    """Return a loader that keeps dates as text."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers: typing.ClassVar = {
            first: [known for known in resolvers if not known[0].endswith(":timestamp")]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    return Loader


def _check_yaml(text: str) -> None:
    """Check the events of a YAML file before any objects are built from them."""
    import yaml

    depth, names, at_name = 0, set(), False
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise ValueError(f"alias *{event.anchor} in line {line} is not accepted: write the value out")
        if depth == 1:  # names and values take turns
            at_name = not at_name
            if at_name and isinstance(event, yaml.ScalarEvent):
                if event.value in names:
                    raise ValueError(f"{event.value!r} is given twice")
                names.add(event.value)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise ValueError("its values are nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_entry(key: Any, value: Any) -> None:
    if not isinstance(key, str):
        raise ValueError(f"{key!r} is not the name of a flag")
    if isinstance(value, dict):
        for name, part in value.items():
            _check_entry(name, part)
        return
    for part in value if isinstance(value, list) else [value]:
        if not isinstance(part, str | int | float | bool | None):
            raise ValueError(f"a value within {key!r} is {_kind(part)}: expected text or a number")


def _kind(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "text", bool: "a switch", type(None): "nothing"}
    return next((word for kind, word in kinds.items() if isinstance(value, kind)), "a number")
