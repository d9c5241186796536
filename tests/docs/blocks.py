"""The fenced blocks of every page, and the command lines in them."""

import dataclasses
import re
import shlex
import textwrap
from pathlib import Path

from flax_distil.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S
)
VARIABLE = re.compile(r"\$\{?\w+[^\s\"'}]*\}?|\$\([^)\n]*\)")
OWN_SCRIPTS = {
    "run_pseudo_label.py": "pseudo-label", "run_distillation.py": "distil", "run_eval.py": "eval",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: Path of the page below the root of the repository.
        line: Number of the line on which the block begins.
        language: Language that the fence names.
        title: File that the block shows (``title="run.yaml"``), or an empty text.
        text: Lines of the block, without the indentation of its list.
    """

    page: str
    line: int
    language: str
    title: str
    text: str


def pages() -> list[Path]:
    """Return every page that people read: the README files and those of the site."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    found += [
        path for folder in ("benchmarks", "scripts", "examples") for path in (ROOT / folder).glob("*.md")
    ]
    return sorted(path for path in found if path.name != "CHANGELOG.md")


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, including those inside lists."""
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(ROOT))
    return [
        Block(
            page=name,
            line=text.count("\n", 0, found.start()) + 1,
            language=found["language"],
            title="".join(re.findall(r'title="([^"]+)"', found["info"])),
            text=textwrap.dedent(found["body"]),
        )
        for found in FENCE.finditer(text)
    ]


def all_blocks() -> list[Block]:
    """Return the fenced blocks of all pages."""
    return [block for page in pages() for block in blocks(page)]


def command_lines(text: str) -> list[list[str]]:
    """Return the words of each command line of a shell block, comments left out.

    A variable stands for some value: its place is taken by a number, which is also a valid name.
    """
    joined = VARIABLE.sub("1000", text.replace("\\\n", " "))
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def own_commands(words: list[str]) -> list[tuple[str, list[str]]]:
    """Return command and flags of each call of ``flax-distil``, or of a script beside it, in a command line.

    The call may follow assignments and the command of a launcher, or stand within one word of it.
    """
    found = []
    for index, word in enumerate(words):
        if " " in word and ("flax-distil " in word or "python run_" in word):
            found += own_commands(shlex.split(word))
        elif word in ("&&", "||", ";", "|"):
            return found + own_commands(words[index + 1 :])
        elif word == "flax-distil" or (word == "python" and words[index + 1] in OWN_SCRIPTS):
            rest = words[index + 1 :]
            end = next((i for i, word in enumerate(rest) if word in ("&&", "||", ";", "|", ">")), len(rest))
            found.append(_command(word, rest[:end]))
            return found + own_commands(rest[end:])
    return found


def _command(program: str, words: list[str]) -> tuple[str, list[str]]:
    """Return the name of a command, which has one word or two, and its flags."""
    if program == "python":
        return OWN_SCRIPTS[words[0]], words[1:]
    length = 1 if words[0] in COMMANDS or words[0].startswith("-") else 2
    return " ".join(words[:length]), words[length:]
