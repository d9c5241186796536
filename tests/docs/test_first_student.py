"""The first guide is run as it stands, on the real teacher and the recordings of the repository."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks

GUIDE = ROOT / "docs" / "guides" / "first-student.md"
TEACHER = "openai/whisper-tiny.en"
"""What the guide calls its teacher, which is a folder here."""


@pytest.mark.slow  # about ten minutes of one core
def test_every_command_of_the_first_guide_runs(tiny_en_dir, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = os.environ | {"PATH": f"{command_folder(tmp_path)}{os.pathsep}{os.environ['PATH']}"}
    for block in blocks(GUIDE):
        if block.language in ("sh", "python") and "pip install" not in block.text:
            program = ["bash", "-e"] if block.language == "sh" else [sys.executable]
            text = block.text.replace(TEACHER, str(tiny_en_dir))
            done = run(program, text, tmp_path, environment)
            assert done.returncode == 0, f"{block.page}:{block.line}: {done.stderr}"
    check_outputs(tmp_path)


def run(
    program: list[str], text: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program, cwd=folder, env=environment, input=text, capture_output=True, text=True, check=False
    )


def command_folder(folder: Path) -> Path:
    """Make a folder with a program ``flax-distil`` that runs this version of the package."""
    program = folder / "bin" / "flax-distil"
    program.parent.mkdir()
    call = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m flax_distil.cli.main "$@"'
    program.write_text(f"#!/bin/sh\n{call}\n", encoding="utf-8")
    program.chmod(0o755)
    return program.parent


def check_outputs(folder: Path) -> None:
    """Check that the student learned, and that every file that the guide promises is there."""
    results = json.loads((folder / "first" / "report" / "results.json").read_text(encoding="utf-8"))
    rates = [model["total"]["clean"]["wer"] for model in results["models"].values()]
    teacher, untrained, student = rates
    assert teacher < student < untrained / 2
    assert (folder / "first" / "report" / "report.html").is_file()
    assert (folder / "first" / "student" / "model.safetensors").is_file()
    assert (folder / "first" / "student" / "report.html").is_file()
    assert (folder / "first" / "student-ct2" / "model.bin").is_file()
    assert list((folder / "first" / "transcripts").glob("*.srt"))
