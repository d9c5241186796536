"""The masks on the device are the processors of Whisper's paper."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.decoding.logits_processors import LogitsProcessors, TokenHistory, process_logits
from flax_distil.text.generation_settings import GenerationSettings
from tests.decoding.reference import permitted, place_of, ruled

SUPPRESSED = (3, 17, 41, 48)


@pytest.fixture(scope="module")
def text_processors(special):
    return LogitsProcessors(special=special, suppress_tokens=SUPPRESSED, begin_suppress_tokens=(0, 40, 50))


@pytest.fixture(scope="module")
def timestamp_processors(text_processors):
    return dataclasses.replace(text_processors, return_timestamps=True, max_initial_timestamp_index=7)


ruling = jax.jit(process_logits, static_argnums=0)
following = jax.jit(TokenHistory.append, static_argnums=2)


def rule(processors, history, logits):
    """Return the logits of one row after a history."""
    emitted = TokenHistory.empty(1)
    for token in history:
        emitted = following(emitted, jnp.array([token], jnp.int32), processors.special)
    return np.asarray(ruling(processors, jnp.asarray(logits, jnp.float32)[None], emitted))[0]


def allowed(processors, history):
    """Return the tokens that may come next where no timestamp is forced."""
    logits = np.zeros(processors.special.vocab_size)
    logits[processors.special.timestamp_begin :] = -20.0
    return set(np.flatnonzero(np.isfinite(rule(processors, history, logits))).tolist())


def test_suppressed_tokens_never_come_and_begin_suppressed_ones_only_not_first(text_processors):
    everything = set(range(120))
    assert allowed(text_processors, []) == everything - {*SUPPRESSED, 0, 40, 50}
    assert allowed(text_processors, [5]) == everything - set(SUPPRESSED)
    assert allowed(text_processors, [5, 6, 40]) == everything - set(SUPPRESSED)


def test_logits_of_allowed_tokens_stay_as_they_are(text_processors, timestamp_processors):
    logits = np.random.default_rng(0).normal(size=120).astype(np.float32)
    for processors in (text_processors, timestamp_processors):
        said = rule(processors, [52, 6], logits)
        assert np.isfinite(said).any()
        np.testing.assert_array_equal(said[np.isfinite(said)], logits[np.isfinite(said)])


def test_the_first_token_is_a_timestamp_within_the_limit(timestamp_processors):
    assert allowed(timestamp_processors, []) == set(range(51, 58))  # 50 is suppressed at the begin
    unlimited = dataclasses.replace(timestamp_processors, max_initial_timestamp_index=None)
    assert allowed(unlimited, []) == set(range(51, 120))


def test_timestamps_come_in_pairs_that_never_decrease(timestamp_processors):
    text = set(range(50)) - {*SUPPRESSED, 49}
    start, words, end, restart = 55, [4, 9], 60, 63
    assert allowed(timestamp_processors, [start]) == text
    # A segment is never empty: its end is later than its start.
    assert allowed(timestamp_processors, [start, *words]) == text | set(range(start + 1, 120))
    # The next segment may start where this one ended; or the transcript ends.
    specials = {token for token in text if token >= 40}
    assert allowed(timestamp_processors, [start, *words, end]) == specials | set(range(end, 120))
    assert allowed(timestamp_processors, [start, *words, end, restart]) == text
    assert allowed(timestamp_processors, [start, *words, end, restart, 4]) == text | set(
        range(restart + 1, 120)
    )
    assert allowed(timestamp_processors, [start, *words, end, end, 4]) == text | set(range(end + 1, 120))
    assert allowed(timestamp_processors, [start, *words, 119, 119, 4]) == text


def test_notimestamps_is_never_emitted_with_timestamps(timestamp_processors, text_processors):
    histories = ([], [51], [51, 4], [51, 4, 52], [51, 4, 52, 52])
    assert all(49 not in allowed(timestamp_processors, history) for history in histories)
    assert 49 in allowed(text_processors, [])


@pytest.mark.parametrize(("each", "forced"), [(0.031, True), (0.029, False)])
def test_a_timestamp_is_forced_when_all_together_beat_every_text_token(timestamp_processors, each, forced):
    logits = np.full(120, -np.inf)
    logits[[4, 5]] = np.log([0.2, 0.3])  # together they are more likely than the timestamps
    logits[60:70] = np.log(each)  # ten of them: 0.31 or 0.29
    survivors = np.flatnonzero(np.isfinite(rule(timestamp_processors, [51, 4], logits))).tolist()
    assert survivors == ([] if forced else [4, 5]) + list(range(60, 70))


def test_only_allowed_timestamps_count_towards_forcing_one(timestamp_processors):
    logits = np.full(120, -np.inf)
    logits[5] = np.log(0.3)
    logits[52:58] = np.log(0.1)  # before the segment's start at 58
    logits[60] = np.log(0.1)
    assert np.flatnonzero(np.isfinite(rule(timestamp_processors, [58, 4], logits))).tolist() == [5, 60]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limit", [7, None])
@pytest.mark.parametrize("timestamps", [False, True])
def test_any_history_is_ruled_as_by_the_reference(timestamp_processors, timestamps, limit, seed):
    processors = dataclasses.replace(
        timestamp_processors, return_timestamps=timestamps, max_initial_timestamp_index=limit
    )
    rng = np.random.default_rng(seed)
    begin, vocabulary, rows = 50, 120, 32
    emitted, histories, seen = TokenHistory.empty(rows), [[] for _ in range(rows)], set()
    for _ in range(14):
        logits = rng.normal(scale=2.0, size=(rows, vocabulary)).astype(np.float32)
        logits[:, begin:] -= rng.uniform(-1.0, 5.0, size=(rows, 1)).astype(np.float32)
        ours = np.asarray(ruling(processors, jnp.asarray(logits), emitted))
        for row, history in enumerate(histories):
            wanted = ruled(processors, logits[row], history)
            np.testing.assert_array_equal(ours[row], wanted, err_msg=f"after {history}")
            forced = (
                np.isneginf(wanted[:begin]).all() and permitted(processors, history, vocabulary)[:begin].any()
            )
            seen.add((place_of(history, begin), bool(forced)))
            # What is said next is anything allowed: the likeliest would seldom leave text.
            history.append(int(rng.choice(np.flatnonzero(np.isfinite(wanted)))))
        said = jnp.array([history[-1] for history in histories], jnp.int32)
        emitted = following(emitted, said, processors.special)
    if timestamps:
        assert seen >= {(place, forced) for place in ("inside", "between") for forced in (True, False)}
        assert ("start", False) in seen
        assert ("start", True) not in seen


def test_settings_of_a_checkpoint_become_rules(special):
    settings = GenerationSettings(
        suppress_tokens=(1, 2),
        begin_suppress_tokens=(3,),
        max_initial_timestamp_index=9,
        is_multilingual=True,
    )
    processors = LogitsProcessors.from_settings(settings, special, return_timestamps=True)
    assert processors == LogitsProcessors(
        special=special, suppress_tokens=(1, 2), begin_suppress_tokens=(3,),
        return_timestamps=True, max_initial_timestamp_index=9,
    )  # fmt: skip
    assert not LogitsProcessors.from_settings(settings, special).return_timestamps


def test_equal_rules_share_one_program(timestamp_processors):
    traced = []

    def trace(processors, logits, emitted):
        traced.append(processors)
        return process_logits(processors, logits, emitted)

    program = jax.jit(trace, static_argnums=0)
    twin = dataclasses.replace(
        timestamp_processors, special=dataclasses.replace(timestamp_processors.special)
    )
    for processors in (timestamp_processors, twin):
        program(processors, jnp.zeros((1, 120)), TokenHistory.empty(1))
    assert len(traced) == 1
