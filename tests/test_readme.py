"""The README shows every command, names what exists, and exports load where it says.

Its blocks are checked with those of all pages (``tests/docs/test_code_blocks.py``).
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flax_distil.cli.main import COMMANDS
from tests.docs.blocks import ROOT, blocks, command_lines, own_commands

README = (ROOT / "README.md").read_text(encoding="utf-8")


def fences(language: str) -> list[str]:
    return [block.text for block in blocks(ROOT / "README.md") if block.language == language]


def command_lines_of_the_readme() -> list[list[str]]:
    return [words for text in fences("sh") for words in command_lines(text)]


def test_every_command_is_shown():
    shown = {command for words in command_lines_of_the_readme() for command, _ in own_commands(words)}
    assert shown == set(COMMANDS)
    assert {name for name in COMMANDS if f"| `{name}`" in README} == set(COMMANDS)


def test_every_path_it_names_exists():
    named = [link.partition("#")[0] or "README.md" for link in re.findall(r"\]\(([^):]+)\)", README)]
    named += re.findall(r"`((?:[\w.]+/)*[\w.]+\.(?:py|md|toml|txt))`", README)
    assert "benchmarks/README.md" in named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_test_that_holds_a_promise_exists():
    promises = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)`( \([^)]*slow\))?", promises)
    assert len(named) > 30
    missing = [path for path, _ in named if not (ROOT / path).exists()]
    assert missing == []
    has_slow = {path: "mark.slow" in (ROOT / path).read_text(encoding="utf-8") for path, _ in named}
    assert [path for path, slow in named if slow and not has_slow[path]] == []


@pytest.mark.integration
def test_a_student_loads_in_transformers_and_faster_whisper_as_it_says(tiny_en_dir, tmp_path):
    flags = ["--decoder_layers", "2", "--dtype", "float16", "--output_dir", "student"]
    own = [sys.executable, "-m", "flax_distil.cli.main"]
    run([*own, "init-student", "--teacher_model_name_or_path", str(tiny_en_dir), *flags], tmp_path)
    (export,) = (words for words in command_lines_of_the_readme() if "student-ct2" in words)
    run([*own, *export[1:]], tmp_path)
    *_, in_transformers, in_faster_whisper = fences("python")  # the others have tests of their own
    run([sys.executable, "-c", in_transformers + "assert model.config.decoder_layers == 2"], tmp_path)
    run([sys.executable, "-c", in_faster_whisper + "assert not model.model.is_multilingual"], tmp_path)


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
