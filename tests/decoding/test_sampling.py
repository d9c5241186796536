"""SamplingParams follow the distribution they are asked for, and belong to their row alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.sampling import sample_tokens, top_k, warp_logits

V = 50
drawing = jax.jit(sample_tokens, static_argnums=5)


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    scores = np.random.default_rng(0).normal(scale=2.0, size=(64, V)).astype(np.float32)
    scores[:, ::7] = -np.inf
    return scores


def draw(scores, temperature, seeds, *, sample=0, count=3, options=None):
    rows = len(scores)
    return np.asarray(drawing(
        jnp.asarray(scores), jnp.broadcast_to(jnp.float32(temperature), rows), jnp.asarray(seeds, jnp.int32),
        jnp.full(rows, sample), jnp.full(rows, count), options or SearchOptions(),
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(0.7, None, None), (1.0, 5, None), (1.3, None, 0.8), (0.5, 20, 0.9), (1.0, 500, 0.2), (1.0, 1, 0.5)],
)
def test_what_is_drawn_from_is_what_transformers_draws_from(scores, temperature, top_k, top_p):
    wanted = TemperatureLogitsWarper(temperature)(None, torch.tensor(scores))
    for warper, value in ((TopKLogitsWarper, top_k), (TopPLogitsWarper, top_p)):
        wanted = wanted if value is None else warper(value)(None, wanted)
    options = SearchOptions(top_k=top_k, top_p=top_p)
    found = warp_logits(jnp.asarray(scores), jnp.full(len(scores), temperature, jnp.float32), options)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert 0 < np.isfinite(found).sum() <= np.isfinite(scores).sum()


@pytest.mark.parametrize("count", [1, 6, 30, 40])
def test_the_likeliest_of_many_are_those_of_a_whole_sort_ties_included(count):
    rng = np.random.default_rng(count)
    scores = jnp.asarray(rng.integers(0, 300, size=(32, 5003)), jnp.float32)
    scores = scores.at[0].set(-jnp.inf).at[1, 3:].set(-jnp.inf)
    for ours, wanted in zip(top_k(scores, count), jax.lax.top_k(scores, count), strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_frequencies_are_the_probabilities(scores):
    drawn = draw(np.repeat(scores[:1], 20_000, axis=0), 1.5, np.arange(20_000))
    wanted = np.asarray(jax.nn.softmax(scores[0] / 1.5))
    np.testing.assert_allclose(np.bincount(drawn, minlength=V) / 20_000, wanted, atol=0.012)  # 3 sigma at 1/2


def test_a_draw_depends_on_seed_sample_and_place_and_not_on_the_batch(scores):
    seeds = np.arange(len(scores))
    drawn = draw(scores, 1.0, seeds)
    order = np.random.default_rng(1).permutation(len(scores))[:8]
    np.testing.assert_array_equal(draw(scores[order], 1.0, seeds[order]), drawn[order])
    for other in (
        draw(scores, 1.0, seeds + 1),
        draw(scores, 1.0, seeds, sample=1),
        draw(scores, 1.0, seeds, count=4),
    ):
        assert (other != drawn).mean() > 0.5


def test_rows_at_temperature_zero_take_the_likeliest_beside_others_that_draw(scores):
    temperatures = np.where(np.arange(len(scores)) % 2, 2.0, 0.0)
    seeds = np.arange(len(scores))
    mixed, hot = draw(scores, temperatures, seeds), draw(scores, 2.0, seeds)
    np.testing.assert_array_equal(mixed[::2], scores[::2].argmax(axis=1))
    np.testing.assert_array_equal(mixed[1::2], hot[1::2])
    assert (hot[::2] != mixed[::2]).mean() > 0.5
