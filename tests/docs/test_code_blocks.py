"""Every fenced block of every page is parsed by what would run it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from flax_distil.cli.main import COMMANDS, config_class, read_command
from tests.docs.blocks import ROOT, Block, all_blocks, blocks, command_lines, own_commands, pages
from tests.docs.python_blocks import problems

BLOCKS = all_blocks()
CHECKED = {"sh", "python", "yaml", "json", "js", "text"}
"""Languages of fences that a test below checks; ``text`` is output, which nothing runs."""


def of(*languages: str) -> list[object]:
    found = [block for block in BLOCKS if block.language in languages]
    return [pytest.param(block, id=f"{block.page}:{block.line}") for block in found]


def test_every_block_names_a_language_that_is_checked():
    assert [f"{block.page}:{block.line}" for block in BLOCKS if block.language not in CHECKED] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_closes_its_fences_and_indents_no_code(page):
    text = page.read_text(encoding="utf-8")
    assert sum(line.lstrip().startswith("```") for line in text.splitlines()) == 2 * len(blocks(page))
    outside = text
    for block in blocks(page):
        outside = outside.replace(block.text, "")
    paragraphs = [part for part in outside.split("\n\n") if part.startswith("    ")]
    commands = [part for part in paragraphs if part.split()[0] in ("pip", "make", "python", "flax-distil")]
    assert commands == [], "indented code is checked by no test: put it into a fence"


@pytest.mark.parametrize("block", of("sh"))
def test_shell_blocks_are_shell_and_their_commands_are_accepted(block, tmp_path, monkeypatch):
    bash = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert bash.returncode == 0, bash.stderr
    write_titled_blocks(block.page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in command_lines(block.text):
        for command, flags in own_commands(words):
            check_command(command, flags)
        check_other(words)


def check_command(command: str, flags: list[str]) -> None:
    if "--help" in [command, *flags] or command == "--version" or command.split()[0] == "recipes":
        return
    assert command in COMMANDS
    config = read_command(command, flags)
    assert isinstance(config, config_class(command))


def check_other(words: list[str]) -> None:
    """Check what else the repository defines: targets of ``make``, extras of ``pip``, modules and scripts."""
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= targets()
    elif words[:2] == ["pip", "install"]:
        named = [re.search(r"^(?:\.|flax-distil)\[([\w,-]+)\]", word) for word in words]
        assert {extra for found in named if found for extra in found[1].split(",")} <= extras()
    elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks"):
        assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file()
    elif words[0] in ("python", "uv") and (named := [word for word in words if word.endswith(".py")]):
        assert (ROOT / named[0]).is_file()


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))


def extras() -> set[str]:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    return set(re.findall(r"^ +\"([\w-]+)\": ", setup, re.MULTILINE))


def test_extras_in_sentences_exist():
    text = "".join(page.read_text(encoding="utf-8") for page in pages())
    named = re.findall(r"pip install \"(?:\.|flax-distil)\[([\w,-]+)\]\"", text)
    assert {extra for found in named for extra in found.split(",")} - extras() == set()
    assert {"tpu", "tpu-plan"} <= set(named)


def test_make_targets_in_sentences_exist():
    text = "".join(page.read_text(encoding="utf-8") for page in pages())
    named = set(re.findall(r"`make ([\w-]+)", text))
    assert named - targets() == set()
    assert "docs" in named


def write_titled_blocks(page: str, folder: Path) -> None:
    """Write the files that a page shows, for the commands that read them."""
    for block in blocks(ROOT / page):
        if block.title and block.language in ("yaml", "json"):
            (folder / block.title).write_text(block.text, encoding="utf-8")


@pytest.mark.parametrize("block", of("python"))
def test_python_blocks_use_names_and_arguments_that_exist(block):
    assert problems(block.text) == []


@pytest.mark.parametrize("block", of("yaml", "json"))
def test_files_of_settings_are_read_by_a_command_of_their_page(block):
    load = json.loads if block.language == "json" else yaml.safe_load
    assert isinstance(load(block.text), dict)
    if block.language == "yaml":
        assert block.title, "name the file, so that a command of the page can read it"
        shells = [other.text for other in blocks(ROOT / block.page) if other.language == "sh"]
        assert any(f"--config {block.title}" in text for text in shells)


@pytest.mark.parametrize("block", of("js"))
def test_javascript_blocks_are_javascript(block: Block, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = tmp_path / "block.mjs"
    script.write_text(block.text, encoding="utf-8")
    checked = subprocess.run([node, "--check", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_every_command_is_shown_on_some_page():
    shell = [block.text for block in BLOCKS if block.language == "sh"]
    found = [call for text in shell for words in command_lines(text) for call in own_commands(words)]
    assert {command for command, _ in found} >= set(COMMANDS)
