"""Imports point one way, entry scripts are thin, torch stays in the tests."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEVELS = {
    "core": 0, "audio": 1, "text": 1, "model": 1, "parallel": 1, "metrics": 1,
    "data": 2, "generation": 2, "distillation": 2, "weights": 2, "transcription": 3, "workflows": 4, "cli": 5,
}  # fmt: skip
FILES = sorted((ROOT / "flax_distil").rglob("*.py"))


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_to_lower_rooms_only_and_never_to_torch(path):
    parts = path.relative_to(ROOT / "flax_distil").parts
    for module in imported_modules(path):
        assert module.split(".")[0] != "torch"
        names = module.split(".")
        if names[0] == "flax_distil" and len(names) > 1 and len(parts) > 1 and names[1] != parts[0]:
            assert LEVELS[names[1]] < LEVELS[parts[0]], f"{parts[0]} imports {names[1]}"


@pytest.mark.parametrize("name", ["run_pseudo_label.py", "run_distillation.py", "run_eval.py"])
def test_entry_scripts_are_thin(name):
    assert len((ROOT / name).read_text().splitlines()) <= 15
