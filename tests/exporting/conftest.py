"""Students and recordings for the tests of every format."""

import json
from pathlib import Path

import pytest

from tests.exporting.students import STUDENTS, ensure_students


@pytest.fixture(scope="session")
def tiny_en_student() -> Path:
    """A student of tiny.en with two decoder layers, float32; training it takes minutes, once."""
    ensure_students(("tiny.en",))
    return STUDENTS / "whisper-tiny.en-2"


@pytest.fixture(scope="session")
def base_student() -> Path:
    """A student of base with two decoder layers, float32; training it takes minutes, once."""
    ensure_students(("base",))
    return STUDENTS / "whisper-base-2"


@pytest.fixture(scope="session")
def held_out(prompts_dir) -> dict[Path, str]:
    """The 80 held-out prompts and what is said in them, by the files."""
    folder = prompts_dir / "validation"
    rows = map(json.loads, (folder / "metadata.jsonl").read_text().splitlines())
    return {folder / row["file_name"]: row["text"] for row in rows}


@pytest.fixture(scope="session")
def few_prompts(held_out) -> list[str]:
    """Four held-out prompts, from the shortest text to the longest."""
    by_length = sorted(held_out, key=lambda path: len(held_out[path]))
    return [str(by_length[index]) for index in (0, 26, 53, 79)]
