"""The masks on the device are those of openai/whisper and of transformers, for any history."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import GenerationConfig, WhisperTimeStampLogitsProcessor
from whisper.decoding import ApplyTimestampRules

from flax_distil.decoding.logits_processors import LogitsProcessors, TokenHistory, process_logits
from flax_distil.text.special_tokens import SpecialTokens

V, ROWS = 120, 64
ruling = jax.jit(process_logits, static_argnums=0)
following = jax.jit(TokenHistory.append, static_argnums=2)


def openai(special: SpecialTokens, prompt: int, latest: int | None):
    ids = types.SimpleNamespace(
        no_timestamps=special.no_timestamps, timestamp_begin=special.timestamp_begin, eot=special.eot
    )
    processors = ApplyTimestampRules(ids, prompt, latest)

    def rule(logits, tokens):
        processors.apply(logits, tokens)  # in place
        return logits

    return rule


def transformers(special: SpecialTokens, prompt: int, latest: int | None):
    settings = GenerationConfig(
        eos_token_id=special.eot, no_timestamps_token_id=special.no_timestamps,
        max_initial_timestamp_index=latest,
    )  # fmt: skip
    processors = WhisperTimeStampLogitsProcessor(settings, begin_index=prompt)
    return lambda logits, tokens: processors(tokens, logits)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("latest", [7, None])
@pytest.mark.parametrize("reference", [openai, transformers])
def test_any_history_is_ruled_as_by_the_reference(special, reference, latest, seed):
    """Histories hold what a search would never say too: text first, times that go back, many in a row."""
    processors = LogitsProcessors(special=special, return_timestamps=True, max_initial_timestamp_index=latest)
    prompt = torch.tensor([[special.sot_prev, 60, 5, special.sot, 7]])  # ends in a prefix; holds a timestamp
    rule = reference(special, prompt.shape[1], latest)
    rng = np.random.default_rng(seed)
    tokens, emitted = prompt.repeat(ROWS, 1), TokenHistory.empty(ROWS)
    forced = 0
    for _ in range(12):
        logits = rng.normal(scale=2.0, size=(ROWS, V)).astype(np.float32)
        logits[:, special.timestamp_begin :] -= rng.uniform(-1.0, 6.0, size=(ROWS, 1)).astype(np.float32)
        wanted = rule(torch.tensor(logits), tokens).numpy()
        np.testing.assert_array_equal(np.asarray(ruling(processors, jnp.asarray(logits), emitted)), wanted)
        forced += int(np.isneginf(wanted[:, : special.timestamp_begin]).all(axis=1).sum())
        allowed = [rng.choice(np.flatnonzero(np.isfinite(row))) for row in wanted]
        anything = rng.choice([3, 9, special.eot, 50, 55, 55, 60, 119], size=ROWS)
        said = np.where(rng.random(ROWS) < 0.3, anything, allowed).astype(np.int32)
        tokens = torch.cat([tokens, torch.tensor(said[:, None])], dim=1)
        emitted = following(emitted, jnp.asarray(said), special)
    assert ROWS < forced < 11 * ROWS
