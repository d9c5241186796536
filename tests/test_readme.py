"""What the README tells to type works: flags parse, names exist, exports load where it says."""

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flax_distil.cli.flags import read_flags
from flax_distil.cli.main import COMMANDS, config_class

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]


def fences(language: str, text: str = README) -> list[str]:
    """Return the bodies of fenced blocks in a language, also of those inside a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(body) for _, body in found]


def command_lines(*texts: str) -> list[list[str]]:
    text = "\n".join(body for text in texts or [README] for body in fences("sh", text)).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def own_commands(*texts: str) -> list[tuple[str, list[str]]]:
    """Return command and flags of every call of ``flax-distil`` or of a script beside it."""
    calls = []
    for words in command_lines(*texts):
        if words[:2] == ["python", "scripts/tpu_job.py"]:
            words = words[words.index("--") + 1 :]  # its own flags: tests/scripts/test_tpu_job.py
        if words[0] == "flax-distil":
            of_one = words[1] in COMMANDS
            calls.append((words[1], words[2:]) if of_one else (" ".join(words[1:3]), words[3:]))
        elif words[0] == "python" and words[1] != "-m":
            script = (ROOT / words[1]).read_text(encoding="utf-8")
            calls.append((re.search(r'script\("([\w-]+)"\)', script)[1], words[2:]))
    return calls


def test_every_command_is_shown():
    assert {command for command, _ in own_commands()} == set(COMMANDS)
    assert {name for name in COMMANDS if f"| `{name}`" in README} == set(COMMANDS)


@pytest.mark.parametrize(
    ("command", "flags"), own_commands(README, *GUIDES), ids=lambda value: str(value)[:20]
)
def test_every_command_line_parses(command, flags):
    config = read_flags(config_class(command), flags, program=f"flax-distil {command}")
    assert isinstance(config, config_class(command))


def test_every_path_it_names_exists():
    named = re.findall(r"\]\(([^):]+)\)", README)
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


def test_every_make_target_it_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", makefile, re.MULTILINE)
    named = set(re.findall(r"(?:^    |`|\()make ([\w-]+)", README, re.MULTILINE))
    assert {"demo", "test", "test-all", "benchmark"} <= named
    assert named <= set(targets)


def test_every_extra_it_names_exists():
    extras = re.findall(r"^ +\"([\w-]+)\": ", (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)
    named = set(re.findall(r"pip install \"\.\[([\w-]+)\]\"", README))
    assert {"tpu", "tpu-plan"} <= named
    assert named <= set(extras)


def test_a_student_loads_in_transformers_and_ctranslate2_as_it_says(tiny_en_dir, tmp_path):
    flags = ["--decoder_layers", "2", "--dtype", "float16", "--output_dir", "student"]
    own = [sys.executable, "-m", "flax_distil.cli.main", "init-student"]
    run([*own, "--teacher_model_name_or_path", str(tiny_en_dir), *flags], tmp_path)
    (converter,) = (words for words in command_lines() if words[0] == "ct2-transformers-converter")
    run([str(Path(sys.executable).with_name(converter[0])), *converter[1:]], tmp_path)
    names = {path.name for path in (tmp_path / "student-ct2").iterdir()}
    assert {"model.bin", "config.json", "tokenizer.json", "preprocessor_config.json"} <= names
    *_, in_transformers, in_ctranslate2 = fences("python")  # the others have tests of their own
    run([sys.executable, "-c", in_transformers + "assert model.config.decoder_layers == 2"], tmp_path)
    run([sys.executable, "-c", in_ctranslate2 + "assert not model.is_multilingual"], tmp_path)


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
