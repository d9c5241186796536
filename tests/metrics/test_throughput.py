import math

import pytest

from flax_distil.metrics.throughput import Throughput


def test_rates_are_sums_over_computing_time_without_compilation():
    measured = Throughput(
        audio_seconds=120.0, compute_seconds=4.0, compile_seconds=9.0, tokens=600, samples=8
    )
    assert (measured.rtfx, measured.tokens_per_second, measured.samples_per_second) == (30.0, 150.0, 2.0)


def test_sums_weigh_long_work_more_than_means_of_rates_would():
    slow = Throughput(audio_seconds=30.0, compute_seconds=30.0, tokens=10, samples=1)
    fast = Throughput(audio_seconds=300.0, compute_seconds=3.0, compile_seconds=1.0, tokens=90, samples=4)
    both = slow + fast
    assert both.rtfx == 10.0
    assert both == fast + slow
    assert (both.compile_seconds, both.tokens, both.samples) == (1.0, 100, 5)


def test_nothing_measured_has_no_rate_and_adds_nothing():
    measured = Throughput(audio_seconds=1.0, compute_seconds=2.0, tokens=3, samples=4)
    assert math.isnan(Throughput().rtfx)
    assert measured + Throughput() == measured


def test_negative_sums_are_refused():
    with pytest.raises(ValueError, match="compute_seconds"):
        Throughput(compute_seconds=-1.0)
