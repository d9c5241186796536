"""Small jobs of every command give the results of the golden file.

Texts, whole numbers and shapes are compared exactly; floats with a tolerance, because their last bits
differ between processors and versions of JAX. With ``GOLDEN_EXACT=1`` floats and the hashes of bytes are
compared exactly too, which holds on the machine and with the versions that wrote the golden file.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads(Path(__file__).with_name("results.json").read_text(encoding="utf-8"))
EXACT = os.environ.get("GOLDEN_EXACT") == "1"
TOLERANCE = 2e-5
TOLERANCES = {"fine_tune": 2e-3}
"""That of the job which computes in bfloat16."""

ONLY_EXACT = ("sha256", "bytes", "README.md", ".transcripts.jsonl", "teacher")
"""Keys of values that change with the last bit of a float."""


def differences(found: Any, golden: Any, tolerance: float, where: str = "") -> Iterator[str]:
    """Yield a sentence for every value that is not the golden one."""
    if isinstance(golden, dict) and isinstance(found, dict):
        unordered = where.endswith("/config")  # settings, in whatever order they are declared
        if (sorted(found) != sorted(golden)) if unordered else (list(found) != list(golden)):
            yield f"{where}: keys {list(found)}, expected {list(golden)}"
        if not EXACT and "magnitude" in golden:  # a sum of values of both signs is relative to them all
            close = abs(found["sum"] - golden["sum"]) <= tolerance * golden["magnitude"]
            found = found | ({"sum": golden["sum"]} if close else {})
        for name in golden:
            if name in found and (EXACT or name not in ONLY_EXACT):
                yield from differences(found[name], golden[name], tolerance, f"{where}/{name}")
    elif isinstance(golden, list) and isinstance(found, list) and len(found) == len(golden):
        for index, (one, other) in enumerate(zip(found, golden, strict=True)):
            yield from differences(one, other, tolerance, f"{where}/{index}")
    elif type(found) is not type(golden) or not is_equal(found, golden, tolerance):
        yield f"{where}: {found!r}, expected {golden!r}"


def is_equal(found: Any, golden: Any, tolerance: float) -> bool:
    if EXACT or not isinstance(golden, float):
        return bool(found == golden)
    return math.isclose(found, golden, rel_tol=tolerance, abs_tol=1e-7)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, Any]:
    """What the jobs give in a process of their own, which compiles in the way that is laid down there."""
    path = tmp_path_factory.mktemp("golden") / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden.generate", str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("job", GOLDEN)
def test_the_results_of_a_job_are_the_golden_ones(job, results):
    assert list(differences(results[job], GOLDEN[job], TOLERANCES.get(job, TOLERANCE))) == []
