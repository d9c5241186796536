"""Decoding onto a cache gives the logits of teacher forcing, wherever each row stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.model.assembly import bind_decoder, to_decode_params
from flax_distil.model.cache import _write_few, _write_rows
from tests.model.programs import SCAN, compiled

CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32, keys and values summed over more (masked) slots


@pytest.fixture(scope="module", params=["as trained", "for decoding"])
def weights(request, params):
    decoder = params["decoder"]
    return decoder if request.param == "as trained" else to_decode_params(decoder)


@pytest.fixture(scope="module")
def start(config, weights, states):
    """Return an empty cache with two slots to spare, and the program that grows it."""

    def empty(weights, states):
        return bind_decoder(config, SCAN, weights).init_cache(states, 14)

    def extend(weights, tokens, cache, offset):
        decoder = bind_decoder(config, SCAN, weights)
        hidden, cache = decoder.decode(decoder.unroll_layers(), tokens, cache, offset)
        return decoder.logits(hidden), cache

    program = compiled(extend)
    return compiled(empty)(weights, states), lambda tokens, cache, offset: program(
        weights, jnp.asarray(tokens), cache, jnp.asarray(offset, jnp.int32)
    )


def test_many_tokens_at_once_equal_teacher_forcing(start, tokens, logits):
    cache, extend = start
    np.testing.assert_allclose(extend(tokens, cache, [0, 0, 0])[0], logits, **CLOSE)


def test_a_prefill_and_single_tokens_equal_teacher_forcing(start, tokens, logits):
    cache, extend = start
    said, cache = extend(tokens[:, :5], cache, [0, 0, 0])
    np.testing.assert_allclose(said, logits[:, :5], **CLOSE)
    for position in range(5, 12):
        said, cache = extend(tokens[:, position : position + 1], cache, [position] * 3)
        np.testing.assert_allclose(said[:, 0], logits[:, position], **CLOSE)


def test_rows_at_different_offsets_equal_teacher_forcing(start, tokens, logits):
    cache, extend = start
    offset = np.array([2, 5, 8])
    _, cache = extend(tokens[:, :8], cache, [0, 0, 0])  # longer than two of the rows: stale slots behind them
    new = np.stack([row[o : o + 4] for row, o in zip(tokens, offset, strict=True)])
    said, _ = extend(new, cache, offset)
    wanted = np.stack([row[o : o + 4] for row, o in zip(np.asarray(logits), offset, strict=True)])
    np.testing.assert_allclose(said, wanted, **CLOSE)


def test_rejected_drafts_leave_no_trace(start, tokens, logits):
    cache, extend = start
    _, cache = extend(tokens[:, :6], cache, [0, 0, 0])
    drafts = (tokens[:, 6:11] + 7) % 53  # wrong ones
    _, cache = extend(drafts, cache, [6, 6, 6])
    # Row 0 rejects them all, row 1 goes back further still, row 2 starts anew.
    offset = np.array([6, 4, 0])
    new = np.stack([row[o : o + 4] for row, o in zip(tokens, offset, strict=True)])
    said, _ = extend(new, cache, offset)
    wanted = np.stack([row[o : o + 4] for row, o in zip(np.asarray(logits), offset, strict=True)])
    np.testing.assert_allclose(said, wanted, **CLOSE)


def test_a_cache_keeps_the_states_and_fills_slot_by_slot(start, states, tokens):
    cache, extend = start
    _, grown = extend(tokens[:, :3], cache, [0, 0, 0])
    np.testing.assert_array_equal(grown.encoder_out_BSD, states)
    assert all(np.abs(keys[:, :, 3:]).max() == 0 < np.abs(keys[:, :, :3]).max() for keys in grown.self_keys)


def test_a_cache_that_grows_goes_on_as_if_it_had_been_large_from_the_start(start, tokens, logits):
    cache, extend = start
    _, cache = extend(tokens[:, :5], cache, [0, 0, 0])
    grown = cache.resized(20)
    assert (cache.slots, grown.slots) == (14, 20)
    said, _ = extend(tokens[:, 5:9], grown, [5, 5, 5])
    np.testing.assert_allclose(said, logits[:, 5:9], **CLOSE)


def test_a_tpu_writes_the_same_slots_in_another_way():
    for count in (1, 3):
        slots, new = (
            jax.random.normal(jax.random.key(seed), (3, 2, c, 4)) for seed, c in enumerate((6, count))
        )
        offset = jnp.array([0, 2, 6 - count])
        np.testing.assert_array_equal(_write_few(slots, new, offset), _write_rows(slots, new, offset))
