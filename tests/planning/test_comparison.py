"""A table of plans has a line per plan, and the mean step of a mix of label lengths."""

import pytest

from flax_distil.planning.reports.comparison import comparison_as_text, mean_step_seconds


def figures(length: int, seconds: float | None) -> dict:
    return {
        "topology": "v4-8", "chips": 4, "label_length": length, "hbm_bytes_per_chip": 2**30,
        "hbm_limit_bytes_per_chip": 2**31, "fits": True, "estimated_step_seconds": seconds,
        "samples_per_second": None if seconds is None else 256 / seconds,
    }  # fmt: skip


def test_the_mean_step_weighs_each_length_by_its_share_of_the_batches():
    plans = [figures(64, 1.0), figures(128, 2.0)]
    assert mean_step_seconds(plans, {64: 3.0, 128: 1.0}) == pytest.approx((3 * 1 + 2) / 4)
    assert mean_step_seconds([*plans, figures(256, None)], {64: 3.0, 256: 1.0}) is None


def test_each_plan_has_a_line_and_what_is_unknown_a_dash():
    lines = comparison_as_text([figures(64, 1.25), figures(128, None)], {"v4-8": 1.5}).splitlines()
    assert lines[1].split() == ["v4-8", "4", "64", "1.00", "2.00", "yes", "1.2500", "204.8", "-", "-"]
    assert lines[2].split()[6:] == ["-", "-", "-", "-"]
    assert lines[3] == "mean step of the label lengths on v4-8: 1.5000 s"
