"""An evaluation fails under conditions that its user wrote."""

import pytest

from flax_distil.evaluation.gate import find_failures, parse_condition

RESULTS = {
    "baseline": "a",
    "models": {
        "a": {"total": {"clean": {"wer": 12.5, "rtfx": None}, "white 0 dB": {"wer": 90.0, "rtfx": 1.0}}},
        "b": {"total": {"clean": {"wer": 12.0, "rtfx": 80.0}, "white 0 dB": {"wer": 80.0, "rtfx": 1.0}}},
    },
    "comparisons": [
        {"model": "b", "data_set": None, "condition": "clean", "difference": -0.5},
        {"model": "b", "data_set": None, "condition": "white 0 dB", "difference": 7.0},
        {"model": "b", "data_set": "x", "condition": "clean", "difference": 9.0},
    ],
}


@pytest.mark.parametrize(
    ("text", "failures"),
    [
        ("wer > 12.5", []),
        ("wer>=12.5", ["a: wer is 12.5, and fail_if says wer >= 12.5"]),
        (" wer < 12.25 % ", ["b: wer is 12, and fail_if says wer < 12.25"]),
        ("difference > -1", ["b: difference is -0.5, and fail_if says difference > -1"]),
        ("difference > 0", []),
        ("rtfx <= 10", ["a: rtfx is not known, and fail_if asks about it: rtfx <= 10"]),
        (
            "mean_wer > 1",
            [f"{m}: mean_wer is not known, and fail_if asks about it: mean_wer > 1" for m in "ab"],
        ),
    ],
)
def test_a_model_fails_where_its_figure_is_as_the_condition_says(text, failures):
    assert find_failures([parse_condition(text)], RESULTS) == failures
