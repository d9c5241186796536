"""The accelerator check runs on any machine: its parts, its golden arrays, its table and its exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.accelerator.__main__ import PARTS, is_right
from benchmarks.accelerator.table import markdown

ROOT = Path(__file__).parent.parent.parent

RIGHT = {"passed": True, "largest_logit_difference": 1e-4, "same_tokens": 3}


def test_a_part_that_failed_says_so_in_the_table():
    results = {
        "date": "2026-11-30", "size": "toy", "seconds": 1.0,
        "machine": {"device": "H200", "devices": 1, "jax": "0.12"},
        "parity": {"recordings": 3, "float32": RIGHT, "bfloat16": RIGHT | {"passed": False}},
        "step": {"failed": "out | of memory"}, "decode": {"skipped": "no time left"},
    }  # fmt: skip
    table = markdown(results)
    assert "| parity with the CPU, bfloat16 | FAILED" in table
    assert "| step | not measured: out ¦ of memory |" in table
    assert "| decode | not measured: no time left |" in table


@pytest.mark.parametrize(
    ("parity", "step", "right"),
    [
        ({"float32": RIGHT, "bfloat16": RIGHT}, {"recompilations": 0}, True),
        ({"float32": RIGHT, "bfloat16": RIGHT | {"passed": False}}, {"recompilations": 0}, False),
        ({"float32": RIGHT, "bfloat16": RIGHT}, {"recompilations": 1}, False),
        ({"failed": "no arrays"}, {"recompilations": 0}, False),
    ],
)
def test_the_check_passes_where_results_are_right_and_nothing_is_compiled_again(parity, step, right):
    assert is_right({"parity": parity, "step": step}) == right


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path):
    output = tmp_path / "results.json"
    command = [sys.executable, "scripts/accelerator_check.py", "--size", "toy", "--json", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text())
    assert set(PARTS) <= set(results)
    assert not [part for part in PARTS if {"failed", "skipped"} & set(results[part])]
    assert results["parity"]["float32"]["same_tokens"] == results["parity"]["recordings"] == 3
    assert "not measured" not in output.with_suffix(".md").read_text()
