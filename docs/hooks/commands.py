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

from flax_distil.cli.flag_types import metavar, shown_default
from flax_distil.cli.flags import ALIASES, OWN_SECTION, POSITIONAL
from flax_distil.cli.main import COMMANDS, config_class
from flax_distil.core.nested import Leaf, leaves

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
    return f"# Commands\n\n`flax-distil COMMAND [flags]`\n\n{table}\n{_EVERY_COMMAND}"


def command_page(command: str) -> str:
    """Return the page of a command: its flags in one table per section of ``--help``."""
    found = config_class(command)
    sections: dict[str, list[Leaf]] = {}
    for leaf in leaves(found):
        sections.setdefault(leaf.section or OWN_SECTION, []).append(leaf)
    files = f"{POSITIONAL.upper()}… " if POSITIONAL in {leaf.name for leaf in leaves(found)} else ""
    parts = [
        f"# `{command}`\n\n{_headline(found)}\n",
        f"`flax-distil {command} {files}[flags]`\n{_EVERY_COMMAND}",
        f"The configuration in Python is [`{found.__name__}`](../configurations.md#{_anchor(found)}).\n",
        *(f"## {title}\n\n{_table(found)}" for title, found in sections.items()),
    ]
    return "\n".join(parts)


def configurations_page() -> str:
    """Return the page that documents the class of each configuration and the classes within it."""
    text = (
        "# Configurations\n\nEvery command has one configuration: a frozen dataclass that is made of smaller "
        "ones. [`build`][flax_distil.core.nested.build] makes it from the names of the flags, wherever "
        "they are nested.\n"
    )
    seen: dict[type, None] = {}
    for command in COMMANDS:
        seen |= dict.fromkeys(_classes(config_class(command)))
    return text + "\n".join(f"\n::: {_anchor(one)}\n    options: {{heading_level: 2}}\n" for one in seen)


def _classes(config: type) -> Iterator[type]:
    """Yield a class of configurations, and those that are nested in it."""
    yield config
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _classes(hints[field.name])


def _table(found: list[Leaf]) -> str:
    rows = [f"| {_names(leaf)} | {_default(leaf)} | {_cell(leaf.text)} |" for leaf in found]
    return "\n".join(["| flag | default | meaning |", "|---|---|---|", *rows, ""])


def _names(leaf: Leaf) -> str:
    if leaf.name == POSITIONAL:
        return f"`{leaf.name.upper()}…`"
    names = " <br> ".join(f"`{name}`" for name in filter(None, [f"--{leaf.name}", ALIASES.get(leaf.name)]))
    return f"{names} <br> <small>{html.escape(metavar(leaf.hint)).replace('|', '&#124;')}</small>"


def _default(leaf: Leaf) -> str:
    if leaf.required:
        return "required"
    shown = shown_default(leaf.default)
    return f"`{shown}`" if shown else ""


def _cell(text: str) -> str:
    """Return a text that stays one cell of a table and holds no markup."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{mark}" if mark in "|*_[]`\\" else mark for mark in escaped)


def _headline(config: Any) -> str:
    return (config.__doc__ or "").strip().splitlines()[0]


def _anchor(config: type) -> str:
    return f"{config.__module__}.{config.__qualname__}"


def _slug(command: str) -> str:
    return command.replace(" ", "-")
