"""The Open ASR Leaderboard's own scorer, run on manifests where a copy of it is on this machine."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.evaluation.leaderboard.manifests import write_manifests

_PROGRAM = """
import json, sys
from normalizer.eval_utils import score_results
folder, language = sys.argv[1:]
_, results = score_results(folder, multilingual=language != "en", language=language, csv_only=True)
print("\\n" + json.dumps({name.split(" | ")[1]: figures["wer"] for name, figures in results.items()}))
"""
"""Prints word error rates in percent by what manifests call a set; English and others have separate rules."""

TOLERANCE = 0.01
"""Difference in percentage points that is still rounding."""


def run_scorer(folder: str, manifests: Mapping[str, Sequence[str]], *, language: str) -> dict[str, float]:
    """Return the word error rates of manifests of one model and one language by the leaderboard's own scorer.

    Args:
        folder: Copy of https://github.com/huggingface/open_asr_leaderboard. Its code is run, in a process of
            its own with this Python.
        manifests: Lines by name of file.
        language: Whisper's code.

    Returns:
        Percentages, rounded to two decimals, by name of file.

    Raises:
        InputError: If the scorer fails, for example because a package that it needs is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="flax-distil-") as scratch:
        write_manifests(manifests, Path(scratch))
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, scratch, language],
            cwd=user_path(folder),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        last = (done.stderr.strip() or "it says nothing").splitlines()[-1]
        raise InputError(
            f"the scorer in {folder!r} failed ({last}): install what its requirements name, or leave "
            "scorer out"
        )
    rates = json.loads(done.stdout.strip().splitlines()[-1])
    return {name: float(rates[_set_of(name)]) for name in manifests}


def _set_of(name: str) -> str:
    """Return the part of a manifest's name behind the model, as the scorer cuts it out."""
    return name.partition("_DATASET_")[2].removesuffix(".jsonl")
