"""Generates the reference pages of the documentation from the configurations, while the site is built.

Every command has a page with its flags, made from the same declarations as its ``--help``. One more page
shows the classes of the configurations, as they are nested. Nothing that is generated is kept in the
repository.
"""

import dataclasses
import html
import typing
from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from flax_distil.cli.flag_types import is_list, metavar, shown_default
from flax_distil.cli.flags import ALIASES, OWN_SECTION, POSITIONAL
from flax_distil.cli.main import COMMANDS, config_class
from flax_distil.core.nested import Leaf, leaves

_OPTIONS = """    options:
        heading_level: 2
        show_signature: false
        separate_signature: false
        show_bases: false
        members: false"""

_EVERY_COMMAND = """
Every command also accepts `--config FILE`, a YAML or JSON file of these flags without their dashes (the
command line takes precedence), `--quiet`, which shows only warnings and errors, and `--help`.
"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the page of every command in the navigation (an event of MkDocs)."""
    reference = next(entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    index = next(entry for entry in reference if "Commands" in entry)
    pages = [{command: f"reference/commands/{_slug(command)}.md"} for command in COMMANDS]
    index["Commands"] = [index["Commands"], *pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of the folder (an event of MkDocs)."""
    pages = {f"reference/commands/{_slug(command)}.md": command_page(command) for command in COMMANDS}
    pages["reference/commands/index.md"] = commands_page()
    pages["reference/configurations.md"] = configurations_page()
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def commands_page() -> str:
    """Return the page that lists the commands."""
    rows = [f"| [`{name}`]({_slug(name)}.md) | {_cell(_headline(config_class(name)))} |" for name in COMMANDS]
    table = "\n".join(["| command | what it does |", "|---|---|", *rows])
    recipes = "`flax-distil recipes` lists the [recipes](../../recipes.md); with a name it prints one."
    return f"# Commands\n\n`flax-distil COMMAND [flags]`\n\n{table}\n{_EVERY_COMMAND}\n{recipes}\n"


def command_page(command: str) -> str:
    """Return the page of a command: its flags in the sections of ``--help``."""
    found = config_class(command)
    sections: dict[str, list[Leaf]] = {}
    for leaf in leaves(found):
        sections.setdefault(leaf.section or OWN_SECTION, []).append(leaf)
    positional = "".join(f"{_positional(leaf)} " for leaf in leaves(found) if leaf.name in POSITIONAL)
    parts = [
        f"# `{command}`\n\n{_headline(found)}\n",
        f"`flax-distil {command} {positional}[flags]`\n{_EVERY_COMMAND}",
        f"The configuration in Python is [`{found.__name__}`](../configurations.md#{_anchor(found)}).\n",
        *("\n".join([f"## {title}\n", *map(_flag, found)]) for title, found in sections.items()),
    ]
    return "\n".join(parts)


def configurations_page() -> str:
    """Return the page that documents the class of each configuration and the classes within it."""
    text = (
        "# Configurations\n\nEvery command has one configuration: a frozen dataclass that is made of smaller "
        "ones. [`build`][flax_distil.build] makes it from the names of the flags, wherever they are nested. "
        "The pages of the [commands](commands/index.md) show the defaults.\n"
    )
    seen: dict[type, None] = {}
    for command in COMMANDS:
        seen |= dict.fromkeys(_classes(config_class(command)))
    return text + "\n".join(f"\n::: {_anchor(one)}\n{_OPTIONS}\n{_parts(one)}\n" for one in seen)


def _classes(config: type) -> Iterator[type]:
    """Yield a class of configurations, and those that are nested in it."""
    yield config
    for nested in _nested(config).values():
        yield from _classes(nested)


def _nested(config: type) -> dict[str, type]:
    """Return the classes that are nested in a class of configurations, by the name of the field."""
    hints = typing.get_type_hints(config)
    names = [field.name for field in dataclasses.fields(config)]
    return {name: hints[name] for name in names if dataclasses.is_dataclass(hints[name])}


def _parts(config: type) -> str:
    """Return the sentence that links the classes that a class is made of."""
    parts = [f"`{name}`: [`{one.__name__}`](#{_anchor(one)})" for name, one in _nested(config).items()]
    return f"Made of {', '.join(parts)}." if parts else ""


def _flag(leaf: Leaf) -> str:
    """Return the entry of one flag in a list of definitions."""
    if leaf.name in POSITIONAL:
        names = f"`{_positional(leaf)}`"
    else:
        names = f"[`--{leaf.name}`](#{leaf.name}){{ #{leaf.name} }}"
        names += f", `{ALIASES[leaf.name]}`" if leaf.name in ALIASES else ""
    return f"{names} <small>{_kind(leaf)}</small>\n:   {_cell(leaf.text)}\n"


def _positional(leaf: Leaf) -> str:
    return leaf.name.upper() + "…" * is_list(leaf.hint)


def _kind(leaf: Leaf) -> str:
    """Return the kind of values that a flag takes, and its default."""
    kind = html.escape(metavar(leaf.hint))
    if leaf.required:
        return f"{kind} · required"
    shown = shown_default(leaf.default)
    return f"{kind} · default <code>{html.escape(shown)}</code>" if shown else kind


def _cell(text: str) -> str:
    """Return a text as one line without markup, which may stand in a cell of a table."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{mark}" if mark in "|*_[]`\\" else mark for mark in escaped)


def _headline(config: Any) -> str:
    return (config.__doc__ or "").strip().splitlines()[0]


def _anchor(config: type) -> str:
    return f"{config.__module__}.{config.__qualname__}"


def _slug(command: str) -> str:
    return command.replace(" ", "-")
