"""Run an export in the program that it is for, and compare texts and logits with ours."""

import dataclasses
import importlib
import importlib.util
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.exporting.choices import Choice
from flax_distil.exporting.verification.reference import Expected
from flax_distil.exporting.verification.runtime import RuntimeModule
from flax_distil.metrics.word_errors import word_errors
from flax_distil.text.normalizers import Normalizer

EXACT = ("float32", "f32", "fp32")
"""Quantizations with which a program must say the same as we do."""


_HEADINGS = (
    "format", "quantization", "program", "same text", "WER to ours", "log-prob. difference", "seconds",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A recording whose text differs."""

    recording: str
    ours: str
    theirs: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One export in its program.

    Attributes:
        choice: Format and quantization.
        recordings: Number of recordings; 0 if the program cannot run the export.
        refusal: Sentence that says why it cannot; None if it can, or is not installed.
        differences: Recordings whose text differs.
        wer: Word error rate of its texts against ours in percent, after normalization; NaN if there are no
            words.
        logit_difference: Largest difference of a log-probability along our transcripts, over the tokens that
            neither side suppresses; None where the program gives none.
        seconds: Seconds that the program took for all recordings, loading left out.
    """

    choice: Choice
    recordings: int = 0
    refusal: str | None = None
    differences: tuple[Difference, ...] = ()
    wer: float = math.nan
    logit_difference: float | None = None
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether a float32 export says something else than we do."""
        # Of several precisions, such as fp32+q8 of onnx, the first is verified.
        return self.choice.quantization.split("+")[0] in EXACT and bool(self.differences)


def compare(choice: Choice, folder: Path, expected: Sequence[Expected], normalize: Normalizer) -> Comparison:
    """Run an export on the recordings of a verification.

    Args:
        choice: Format and quantization of the export.
        folder: Its folder.
        expected: The recordings, and what we make of them.
        normalize: Normalizer of the word error rate.
    """
    kind = choice.format
    package = kind.verification_package
    if kind.verification is None or (package and importlib.util.find_spec(package) is None):
        return Comparison(choice=choice)
    module = cast(RuntimeModule, importlib.import_module(f"flax_distil.exporting.{kind.verification}"))
    try:
        runtime = module.open_runtime(folder)
    except InputError as error:  # the export may be right, and other formats are still compared
        return Comparison(choice=choice, refusal=str(error))
    start = time.perf_counter()
    texts = [runtime.transcribe(one.clip).strip() for one in expected]
    seconds = time.perf_counter() - start
    distances = [
        logit_distance(one.logits_TV, theirs)
        for one in expected
        if one.logits_TV is not None and (theirs := runtime.logits(one.clip, one.tokens)) is not None
    ]
    pairs = zip(expected, texts, strict=True)
    return Comparison(
        choice=choice,
        recordings=len(expected),
        differences=tuple(
            Difference(recording=one.clip.name, ours=one.text, theirs=text)
            for one, text in pairs
            if one.text != text
        ),
        wer=word_errors([one.text for one in expected], texts, normalize).wer,
        logit_difference=max(distances) if distances else None,
        seconds=seconds,
    )


def logit_distance(ours_TV: Float[np.ndarray, "T V"], theirs_RV: Float[np.ndarray, "R V"]) -> float:
    """Return the largest difference of log-probabilities among tokens with a finite logit on both sides.

    Args:
        ours_TV: Our logits.
        theirs_RV: Logits of the same rows; rows behind the last one of either side are left out.
    """
    largest = 0.0
    for ours_V, theirs_V in zip(ours_TV, theirs_RV, strict=False):
        both = np.isfinite(ours_V) & np.isfinite(theirs_V)
        difference_N = _log_softmax(ours_V[both]) - _log_softmax(theirs_V[both])
        largest = max(largest, float(np.abs(difference_N).max(initial=0.0)))
    return largest


def _log_softmax(logits_N: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    shifted_N = logits_N.astype(np.float64) - logits_N.max()
    return shifted_N - np.log(np.exp(shifted_N).sum())


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as aligned lines, with a list of the texts that differ."""
    rows = [list(_HEADINGS)]
    for one in comparisons:
        runtime = one.choice.format.runtime
        if not one.recordings:
            why = "not run" if one.refusal else "not installed"
            rows.append([one.choice.name, one.choice.quantization, f"{runtime}: {why}", *["-"] * 4])
            continue
        same = f"{one.recordings - len(one.differences)} of {one.recordings}"
        distance = "-" if one.logit_difference is None else f"{one.logit_difference:.2g}"
        cells = [same, f"{one.wer:.1f} %", distance, f"{one.seconds:.1f}"]
        rows.append([one.choice.name, one.choice.quantization, runtime, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    for one in comparisons:
        lines += [f"{one.choice.name}: {one.refusal}"] if one.refusal else []
        for difference in one.differences:
            lines += [f"{one.choice.name}, {difference.recording}:", f"  ours:   {difference.ours}"]
            lines += [f"  theirs: {difference.theirs}"]
    return "\n".join(line.rstrip() for line in lines)
