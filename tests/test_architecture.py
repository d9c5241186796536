"""Imports point one way, entry scripts are thin, torch stays in the tests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "flax_distil"
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
ROOMS = {path.name for path in (ROOT / PACKAGE).iterdir() if (path / "__init__.py").is_file()}


def drawn_imports() -> dict[str, set[str]]:
    """Read from docs/architecture.md which rooms each room may import."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", text, re.MULTILINE)
    return {room: set(re.findall(r"`(\w+)`", allowed)) for room, allowed in rows}


ALLOWED = drawn_imports()


def imported_modules(source: str, package: str) -> Iterator[str]:
    """Yield the full name of everything that a module of ``package`` imports, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            # `from flax_distil import data` names a room only after the import.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imported_rooms(source: str, package: str) -> set[str]:
    names = [name.split(".") for name in imported_modules(source, package)]
    return {name[1] for name in names if name[0] == PACKAGE and name[1] in ROOMS}


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("from flax_distil import data, text", {"data", "text"}),
        ("from flax_distil import __version__", set()),
        ("from flax_distil.data import Batch", {"data"}),
        ("import flax_distil.data.training.batches as b", {"data"}),
        ("from .. import data", {"data"}),
        ("from ..data import Batch", {"data"}),
        ("from .layers import stack_of", {"model"}),
        ("from . import layers", {"model"}),
        ("def late():\n    from ..data.batches import Batch", {"data"}),
    ],
)
def test_every_way_to_import_a_room_is_seen(source, rooms):
    assert imported_rooms(source, "flax_distil.model") == rooms


def test_every_room_is_drawn_and_no_arrows_form_a_circle():
    assert ALLOWED.keys() == ROOMS
    seen: set[str] = set()
    for room, allowed in ALLOWED.items():
        assert allowed <= seen, f"{room} may import rooms that stand below it"
        seen.add(room)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_what_is_drawn_and_never_torch(path):
    source = path.read_text(encoding="utf-8")
    package = ".".join(path.relative_to(ROOT).parent.parts)
    assert not {name for name in imported_modules(source, package) if name.split(".")[0] == "torch"}
    room = path.relative_to(ROOT / PACKAGE).parts[0]
    if room in ROOMS:
        assert imported_rooms(source, package) <= ALLOWED[room] | {room}


@pytest.mark.parametrize("name", ["run_pseudo_label.py", "run_distillation.py", "run_eval.py"])
def test_entry_scripts_are_thin(name):
    assert len((ROOT / name).read_text().splitlines()) <= 15
