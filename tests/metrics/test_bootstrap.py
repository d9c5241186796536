"""Intervals and p-values against scipy, against all possible draws, and by how often they are right."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from flax_distil.metrics.bootstrap import (
    bootstrap_p_value,
    matched_pairs_p_value,
    percentile_interval,
    resample_sums,
)


def corpus(seed: int, recordings: int = 60) -> np.ndarray:
    """Return errors of two models, the second a little worse, and words of recordings."""
    random = np.random.default_rng(seed)
    words = random.integers(3, 30, recordings)
    hard = random.beta(1, 6, recordings)
    return np.stack([random.binomial(words, hard), random.binomial(words, hard * 1.2), words], 1).astype(
        float
    )


def test_draws_are_those_of_all_possible_samples():
    counts_NX = np.array([[0.0, 2.0], [1.0, 3.0], [5.0, 4.0]])
    every = [counts_NX[list(rows)].sum(axis=0) for rows in itertools.product(range(3), repeat=3)]
    exact = np.array([errors / words for errors, words in every])
    sums_RX = resample_sums(counts_NX, resamples=50_000)
    drawn = sums_RX[:, 0] / sums_RX[:, 1]
    assert set(np.round(drawn, 9)) == set(np.round(exact, 9))
    for rate in set(exact):
        share = np.isclose(drawn, rate).mean()
        assert share == pytest.approx(np.isclose(exact, rate).mean(), abs=0.01)


def test_the_interval_is_that_of_scipy():
    counts_NX = corpus(0)
    wanted = scipy.stats.bootstrap(
        (counts_NX[:, 0], counts_NX[:, 2]),
        lambda errors, words, axis=-1: errors.sum(axis) / words.sum(axis),
        paired=True, vectorized=True, n_resamples=20_000, method="percentile", random_state=1,
    ).confidence_interval  # fmt: skip
    sums_RX = resample_sums(counts_NX, resamples=20_000)
    assert percentile_interval(sums_RX[:, 0] / sums_RX[:, 2]) == pytest.approx(tuple(wanted), rel=0.03)


def test_intervals_hold_the_true_rate_nearly_as_often_as_they_say():
    everything = corpus(1, 5000)
    true = everything[:, 0].sum() / everything[:, 2].sum()
    random, held = np.random.default_rng(2), 0
    for trial in range(300):
        part = everything[random.choice(len(everything), 100)]
        sums_RX = resample_sums(part, resamples=400, seed=trial)
        low, high = percentile_interval(sums_RX[:, 0] / sums_RX[:, 2])
        held += low <= true <= high
    assert 0.90 <= held / 300 <= 0.98


def test_draws_depend_on_the_seed_alone_and_pair_the_columns(monkeypatch):
    counts_NX = corpus(3)
    sums_RX = resample_sums(counts_NX, resamples=100, seed=5)
    monkeypatch.setattr("flax_distil.metrics.bootstrap._DRAWN_AT_ONCE", 7 * len(counts_NX))  # in pieces
    np.testing.assert_array_equal(resample_sums(counts_NX, resamples=100, seed=5), sums_RX)
    assert (resample_sums(counts_NX, resamples=100, seed=6) != sums_RX).any()
    alone = resample_sums(counts_NX[:, [1]], resamples=100, seed=5)
    np.testing.assert_array_equal(alone[:, 0], sums_RX[:, 1])


def test_equal_recordings_have_no_spread():
    sums_RX = resample_sums(np.array([[1.0, 4.0]] * 8))
    assert percentile_interval(sums_RX[:, 0] / sums_RX[:, 1]) == (0.25, 0.25)


def test_an_interval_of_nothing_is_not_a_number():
    assert all(math.isnan(end) for end in percentile_interval(np.array([math.nan, math.nan])))


def test_the_matched_pairs_test_by_hand_and_by_scipy():
    differences = corpus(4)[:, 1] - corpus(4)[:, 0]
    z = differences.mean() / (differences.std(ddof=1) / math.sqrt(len(differences)))
    assert matched_pairs_p_value(differences) == pytest.approx(2 * scipy.stats.norm.sf(abs(z)))
    assert matched_pairs_p_value(-differences) == matched_pairs_p_value(differences)
    assert matched_pairs_p_value(np.zeros(9)) == 1.0
    assert matched_pairs_p_value(np.ones(9)) == 0.0
    assert math.isnan(matched_pairs_p_value(np.ones(1)))


def test_the_bootstrap_p_value_by_hand():
    assert bootstrap_p_value(np.array([-1.0, 2.0, 3.0, 4.0])) == 2 * 2 / 5
    assert bootstrap_p_value(np.zeros(99)) == 1.0
    assert bootstrap_p_value(np.ones(99)) == 0.02


def test_both_tests_agree_and_rarely_see_what_is_not_there():
    differences_seen, pairs = np.zeros(2), []
    for seed in range(200):
        random = np.random.default_rng(seed)
        differences = (random.binomial(8, 0.1, 80) - random.binomial(8, 0.1, 80)).astype(float)
        sums_RX = resample_sums(differences[:, None], resamples=500, seed=seed)
        pair = bootstrap_p_value(sums_RX[:, 0]), matched_pairs_p_value(differences)
        differences_seen += np.array(pair) < 0.05
        pairs.append(pair)
    assert (differences_seen / 200 < 0.10).all()
    assert (differences_seen > 0).all()
    assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.97
