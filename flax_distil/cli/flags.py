"""Make flags from a configuration: names, types, defaults and help of its leaves (see ``core/nested.py``)."""

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from flax_distil.cli.config_files import read_config_file
from flax_distil.cli.flag_types import WORDS, convert, is_list, metavar, shown_default
from flax_distil.cli.flag_values import check_value, shortened
from flax_distil.cli.sections import Sections
from flax_distil.core.errors import InputError
from flax_distil.core.fields import one_line
from flax_distil.core.nested import Leaf, build, flatten_names, leaves, nearest_name, type_options

Config = TypeVar("Config")

ALIASES = {
    "model_name_or_path": "--model",
    "teacher_model_name_or_path": "--teacher",
    "assistant_model_name_or_path": "--assistant_model",
    "output_dir": "-o",
    "hub_dataset_id": "--hub_model_id",
    "speaker_column_name": "--speaker_id_column_name",
}
"""Second names of flags, by their first names."""

POSITIONAL = ("files", "run_dir")
"""Names of the settings that take the arguments without a flag; a command has one of them at most."""

MAX_ARGUMENT_LENGTH = 10_000
"""Maximum number of characters of an argument."""

OWN_SECTION = "Main flags"
"""Heading in ``--help`` of the flags that the outermost configuration of a command declares."""

_CONFIG_HELP = (
    "YAML or JSON file of flags, or recipe:NAME for one that comes with the package (flax-distil recipes "
    "lists them); the command line wins."
)


def read_flags(
    config_class: type[Config], arguments: Sequence[str], *, program: str, sections: Sections | None = None
) -> Config:
    """Parse flags, and the YAML or JSON files that ``--config`` names, into a configuration.

    Flags take precedence over files, and later files over earlier ones. A boolean flag may stand alone
    (``--push_to_hub``) or have a value. A text flag that is declared with a ``switch`` may stand alone too;
    then, and with the value ``true``, its value is the switch. The values of a list follow one another
    (``--decoder_layer_indices 0 3``).

    Args:
        config_class: Configuration whose leaves are the flags.
        arguments: Arguments of the command line.
        program: Name shown in the help.
        sections: What is read of files that have sections for several commands; by default none may have.

    Raises:
        InputError: If a flag is unknown or missing, a value has the wrong type, or the configuration refuses
            it.
        SystemExit: After ``--help`` was printed.
    """
    _check_lengths(arguments)
    flags = {leaf.name: leaf for leaf in leaves(config_class)}
    files, rest = _config_files(arguments)
    parser = _parser(config_class, flags, program)
    given = vars(parser.parse_args(_with_values(flags, rest)))
    values: dict[str, Any] = {}
    for file in files:
        values |= _file_values(file, config_class, flags, sections)
    for name, leaf in flags.items():
        if given[name] is not None:
            values[name] = convert(name, given[name], leaf.hint)
    if missing := [name for name, leaf in flags.items() if leaf.required and name not in values]:
        parser.error(f"missing {', '.join(map(_shown_name, missing))}")
    for name, value in values.items():
        if value != flags[name].default:
            check_value(name, value)
    return build(config_class, values)


def switched_on(name: str, arguments: Sequence[str]) -> bool:
    """Return whether a switch is on the command line, before it is known which command has the flags."""
    given = [index for index, argument in enumerate(arguments) if argument.partition("=")[0] == f"--{name}"]
    if not given:
        return False
    value = arguments[given[-1]].partition("=")[2] or "".join(arguments[given[-1] + 1 :][:1])
    return value.lower() not in ("false", "no")


class _Flag(argparse.Action):
    """An action that keeps the value of a flag as text until all flags are known.

    Attributes:
        leaf: Setting of the flag.
    """

    def __init__(self, *, leaf: Leaf, **options: Any):
        super().__init__(**options)
        self.leaf = leaf

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, values)


class _Parser(argparse.ArgumentParser):
    """A parser that raises an ``InputError`` instead of ending the process."""

    def __init__(self, names: Collection[str], **options: Any):
        super().__init__(**options)
        self._names = names

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].partition("=")[0].partition(" ")[0]
        near = nearest_name(unknown.removeprefix("--"), self._names, prefix="--") if unknown else ""
        message = one_line(shortened(message, most=150))
        raise InputError(f"{message}{near} ({self.prog} --help lists the flags)")


def _parser(config_class: type, flags: Mapping[str, Leaf], program: str) -> argparse.ArgumentParser:
    positional = [name for name in POSITIONAL if name in flags]
    parser = _Parser(
        flags,
        prog=program,
        usage=" ".join([program, *(_positional_usage(flags[name]) for name in positional), "[flags]"]),
        description=(config_class.__doc__ or "").strip().splitlines()[0],
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)
    parser.add_argument("--quiet", action="store_true", help="Show only warnings and errors.")
    sections = dict.fromkeys(leaf.section or OWN_SECTION for leaf in flags.values())
    groups = {title: parser.add_argument_group(title) for title in sections}
    for name, leaf in flags.items():
        options: dict[str, Any] = {"action": _Flag, "leaf": leaf, "help": _help(leaf)}
        if is_list(leaf.hint):
            options["nargs"] = "*" if positional else "+"
        elif name in positional:
            options["nargs"] = "?"
        names = [name] if name in positional else [f"--{name}", *filter(None, [ALIASES.get(name)])]
        if name not in positional:
            options |= {"dest": name, "metavar": metavar(leaf.hint)}
        groups[leaf.section or OWN_SECTION].add_argument(*names, **options)
    return parser


def _positional_usage(leaf: Leaf) -> str:
    return leaf.name.upper() + "…" * is_list(leaf.hint)


def _shown_name(name: str) -> str:
    return name.upper() if name in POSITIONAL else f"--{name}"


def _help(leaf: Leaf) -> str:
    text = leaf.text.replace("%", "%%")
    if leaf.required:
        return f"{text} (required)"
    default = shown_default(leaf.default)
    return f"{text} (default: {default})".replace("%", "%%") if default else text


def _check_lengths(arguments: Sequence[str]) -> None:
    longest = max(arguments, key=len, default="")
    if len(longest) > MAX_ARGUMENT_LENGTH:
        raise InputError(
            f"argument {shortened(longest)!r} is {len(longest)} characters long: expected at most "
            f"{MAX_ARGUMENT_LENGTH}"
        )


def _config_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into the files that ``--config`` names and all others."""
    files, others, rest = [], [], list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if name != "--config":
            others.append(argument)
        elif equals or rest:
            files.append(value if equals else rest.pop(0))
        else:
            raise InputError("--config names no file: expected the path of a YAML or JSON file")
    return files, others


def _file_values(
    file: str, config_class: type, flags: Mapping[str, Leaf], sections: Sections | None
) -> dict[str, Any]:
    """Return the settings in a file of flags, which may be nested like the configuration."""
    flatten = flatten_names if sections is None else sections.flatten
    try:
        given = flatten(config_class, read_config_file(file))
    except InputError as error:
        if str(error).startswith("--config"):
            raise
        raise InputError(f"--config: {file!r}: {error}") from error
    values = {}
    for name, value in given.items():
        leaf = flags[name]
        if leaf.switch is not None and isinstance(value, bool):
            value = leaf.switch if value else None
        values[name] = convert(name, value, leaf.hint)
    return values


def _with_values(flags: Mapping[str, Leaf], arguments: Sequence[str]) -> list[str]:
    """Add the values of switches that stand alone."""
    completed: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        leaf = flags.get(name) if argument.startswith("--") else None
        if leaf is not None and bool in type_options(leaf.hint):
            if not equals:
                value = rest.pop(0) if rest and rest[0].lower() in WORDS else "true"
            argument = f"--{name}={value}"
        elif leaf is not None and leaf.switch is not None:
            if not equals:
                value = "true" if not rest or rest[0].startswith("-") else rest.pop(0)
            value = {"true": leaf.switch, "false": "null"}.get(value.lower(), value)
            argument = f"--{name}={value}"
        completed.append(argument)
    return completed
