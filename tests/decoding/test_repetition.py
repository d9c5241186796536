"""Repeated tokens are discouraged as transformers discourages them, in every search."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from flax_distil.decoding.logits_processors import LogitsProcessors, TokenHistory, process_logits
from flax_distil.decoding.types import GenerateInputs

V, ROWS, LENGTH = 120, 8, 9
ruling = jax.jit(process_logits, static_argnums=0)
following = jax.jit(TokenHistory.append, static_argnums=2)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8])
def test_any_history_is_ruled_as_by_transformers(special, penalty, size):
    processors = LogitsProcessors(special=special, repetition_penalty=penalty, no_repeat_ngram_size=size)
    rng = np.random.default_rng(size)
    tokens = torch.zeros((ROWS, 0), dtype=torch.int64)
    emitted = TokenHistory.empty(ROWS, room=LENGTH if processors.counts_repetitions else None)
    for _ in range(LENGTH):
        logits = rng.normal(scale=2.0, size=(ROWS, V)).astype(np.float32)
        wanted = torch.tensor(logits)
        if penalty != 1:
            wanted = RepetitionPenaltyLogitsProcessor(penalty)(tokens, wanted)
        if size:
            wanted = NoRepeatNGramLogitsProcessor(size)(tokens, wanted)
        ours = np.asarray(ruling(processors, jnp.asarray(logits), emitted))
        np.testing.assert_allclose(ours, wanted.numpy(), rtol=1e-6)
        said = rng.integers(0, 3, size=ROWS).astype(np.int32)  # few tokens: runs come again
        tokens = torch.cat([tokens, torch.tensor(said[:, None]).long()], dim=1)
        emitted = following(emitted, jnp.asarray(said), special)
    if size:
        assert np.isneginf(ours).any()


def test_the_forced_beginning_counts_as_emitted(special):
    processors = LogitsProcessors(special=special, return_timestamps=True, no_repeat_ngram_size=2)
    prompt = jnp.array([[special.sot, 50, 7, 8, 7], [special.sot, 3, 4, 5, 6]], jnp.int32)
    inputs = GenerateInputs(
        jnp.zeros((2, 1, 1)), prompt, jnp.array([5, 1]), prefix_length_B=jnp.array([4, 0])
    )
    emitted = TokenHistory.after_prompts(processors, inputs, max_new_tokens=3)
    allowed = np.isfinite(np.asarray(ruling(processors, jnp.zeros((2, V)).at[:, 50:].set(-20.0), emitted)))
    assert not allowed[0, 8]  # 7 8 was there
    assert allowed[0, 9]
    assert not allowed[0, 50]  # a timestamp is later than the beginning
    assert allowed[0, 51]
    # Without one, the first token is a timestamp.
    np.testing.assert_array_equal(np.flatnonzero(allowed[1]), np.arange(50, 101))


def test_rules_that_ask_for_no_history_keep_none(special):
    inputs = GenerateInputs(jnp.zeros((1, 1, 1)), jnp.zeros((1, 4), jnp.int32), jnp.array([4]))
    for processors, is_kept in ((LogitsProcessors(special=special), False),
                           (LogitsProcessors(special=special, repetition_penalty=1.1), True)):  # fmt: skip
        emitted = TokenHistory.after_prompts(processors, inputs, max_new_tokens=3)
        assert (emitted.tokens_BT is not None) is is_kept


def test_words_added_behind_the_timestamps_are_text(special):
    """The vocabulary ends at 50 + 1501 timestamps; 9 words stand behind."""
    end = special.timestamp_end
    longer = dataclasses.replace(special, vocab_size=end + 9)
    processors = LogitsProcessors(special=longer, return_timestamps=True)
    emitted = TokenHistory.empty(1)
    logits = jnp.zeros((1, end + 9)).at[:, 50:end].set(-20.0)

    def allowed_after(token: int) -> np.ndarray:
        nonlocal emitted
        emitted = following(emitted, jnp.array([token], jnp.int32), longer)
        return np.isfinite(np.asarray(ruling(processors, logits, emitted)))[0]

    assert not np.isfinite(np.asarray(ruling(processors, logits, emitted)))[
        0, end:
    ].any()  # a timestamp is first
    assert allowed_after(50)[[3, end, end + 8]].all()
    inside = allowed_after(end + 2)
    assert inside[[3, 51, end, end + 8]].all()
    assert not inside[50]
    assert not allowed_after(60)[[3, end, end + 8]].any()  # a segment has ended
    assert int(emitted.timestamp_B[0]) == 60


def test_a_timestamp_is_not_forced_by_what_is_behind_the_last(special):
    end = special.timestamp_end
    longer = dataclasses.replace(special, vocab_size=end + 9)
    processors = LogitsProcessors(special=longer, return_timestamps=True)
    emitted = following(following(TokenHistory.empty(1), jnp.array([50]), longer), jnp.array([4]), longer)
    logits = np.full((1, end + 9), -np.inf, np.float32)
    logits[0, end : end + 9] = np.log(0.1)
    logits[0, [5, 60]] = np.log([0.3, 0.05])
    found = np.flatnonzero(np.isfinite(np.asarray(ruling(processors, jnp.asarray(logits), emitted)))[0])
    assert found.tolist() == [5, 60, *range(end, end + 9)]
    logits[0, 60] = np.log(0.4)
    found = np.flatnonzero(np.isfinite(np.asarray(ruling(processors, jnp.asarray(logits), emitted)))[0])
    assert found.tolist() == [60]
