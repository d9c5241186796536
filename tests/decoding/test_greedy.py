"""The search says what running the whole sequence again for every token says."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.decoding import greedy, loop
from flax_distil.decoding.hypotheses import Hypotheses
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.decoding.loop import generate
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.types import GenerateInputs, GenerateOutput
from flax_distil.model.assembly import bind_decoder
from tests.decoding.reference import log_softmax, ruled
from tests.model.programs import SCAN, compiled, decoding

NEW = 12
SLOTS = 7  # of the prompts
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32, attention summed in another order


@dataclasses.dataclass(frozen=True)
class Task:
    """Eight rows to decode, and what the slow way makes of them."""

    processors: LogitsProcessors
    prompts: list[list[int]]
    padded: jax.Array
    lengths: jax.Array
    search: Callable[..., GenerateOutput]
    tokens: list[list[int]]
    logprobs: list[list[float]]
    no_speech: list[float]


def searching(config, processors, *, new=NEW):
    """Return a program of its own, traced anew."""

    def run(params, states, prompts, lengths, limit):
        return generate(
            bind_decoder(config, SCAN, params["decoder"]),
            GenerateInputs(states, prompts, lengths, limit_B=limit),
            processors=processors, options=SearchOptions(), max_new_tokens=new,
        )  # fmt: skip

    return compiled(run)


def limits(task, limit):
    """Give every row the same limit."""
    return jnp.full(len(task.prompts), limit, jnp.int32)


def padded(rows, slots, padding):
    return jnp.array([row + [padding] * (slots - len(row)) for row in rows], jnp.int32)


def search_naively(say, prompts, processors):
    """Return tokens and their log-probabilities (that of end-of-text too), one whole sequence a token."""
    end = processors.special.eot
    tokens, logprobs = [[] for _ in prompts], [[] for _ in prompts]
    for _ in range(NEW):
        sequences = [prompt + said for prompt, said in zip(prompts, tokens, strict=True)]
        logits = say(padded(sequences, SLOTS + NEW, end))
        for row, said in enumerate(tokens):
            if end not in said:
                scores = log_softmax(ruled(processors, logits[row, len(sequences[row]) - 1], said))
                said.append(int(scores.argmax()))
                logprobs[row].append(float(scores.max()))
    return [[token for token in said if token != end] for said in tokens], logprobs


def make_task(config, params, states, special, *, timestamps) -> Task:
    previous = [[], [special.sot_prev, 5], [special.sot_prev, 30, 8], []]
    language = list(special.languages.values())
    prompts = [
        [*previous[row % 4], special.sot, language[row % 3], special.transcribe]
        + ([] if timestamps else [special.no_timestamps])
        for row in range(len(states))
    ]
    processors = LogitsProcessors(
        special=special, suppress_tokens=(special.sot, *language, special.no_speech),
        begin_suppress_tokens=(special.eot,), return_timestamps=timestamps, max_initial_timestamp_index=9,
    )  # fmt: skip
    program = decoding(config)

    def say(tokens):
        return np.asarray(program(params, tokens, states))

    tokens, logprobs = search_naively(say, prompts, processors)
    logits = say(padded(prompts, SLOTS + NEW, special.eot))
    starts = [prompt.index(special.sot) for prompt in prompts]
    at_start = [log_softmax(logits[row, start]) for row, start in enumerate(starts)]
    return Task(
        processors=processors,
        prompts=prompts,
        padded=padded(prompts, SLOTS, special.eot),
        lengths=jnp.array([len(prompt) for prompt in prompts], jnp.int32),
        search=searching(config, processors),
        tokens=tokens,
        logprobs=logprobs,
        no_speech=[float(np.exp(scores[special.no_speech])) for scores in at_start],
    )


@pytest.fixture(scope="module")
def text_task(config, params, states, special) -> Task:
    return make_task(config, params, states, special, timestamps=False)


@pytest.fixture(scope="module")
def timestamp_task(config, params, states, special) -> Task:
    return make_task(config, params, states, special, timestamps=True)


@pytest.fixture(params=["text_task", "timestamp_task"])
def task(request) -> Task:
    return request.getfixturevalue(request.param)


def assert_naive(result, task, limit=NEW):
    """Compare every field with the slow search's, cut after ``limit`` tokens."""
    end = task.processors.special.eot
    for row, (said, scores) in enumerate(zip(task.tokens, task.logprobs, strict=True)):
        said, scores = said[:limit], scores[:limit]
        assert result.tokens_BT[row].tolist() == said + [end] * (NEW - len(said))
        np.testing.assert_allclose(result.logprobs_BT[row], scores + [0.0] * (NEW - len(scores)), **CLOSE)
        assert result.length_B[row] == len(said)
        np.testing.assert_allclose(result.avg_logprob_B[row], sum(scores) / (len(said) + 1), **CLOSE)
    np.testing.assert_allclose(result.no_speech_prob_B, task.no_speech, rtol=1e-3)


def test_prompts_ends_and_tokens_vary_so_that_the_other_tests_mean_something(task):
    assert len(set(map(len, task.prompts))) == 3
    ends = {len(said) for said in task.tokens}
    assert len(ends) > 2
    assert max(ends) == NEW
    assert len({token for said in task.tokens for token in said}) >= 5


def test_a_search_equals_running_whole_sequences_again(task, params, states):
    assert_naive(task.search(params, states, task.padded, task.lengths, limits(task, NEW)), task)


@pytest.mark.parametrize("limit", [1, 4, NEW + 9])
def test_a_limit_at_run_time_cuts_the_same_tokens_short(task, params, states, limit):
    assert_naive(task.search(params, states, task.padded, task.lengths, limits(task, limit)), task, limit)


def test_what_pads_a_prompt_changes_nothing(task, params, states):
    noise = padded(task.prompts, SLOTS, 33)
    assert (noise != task.padded).any()
    assert_naive(task.search(params, states, noise, task.lengths, limits(task, NEW)), task)


def test_a_cache_that_grows_gives_the_tokens_of_a_large_one(task, config, params, states, monkeypatch):
    grown = []
    resized = Hypotheses.resized
    monkeypatch.setattr(
        Hypotheses, "resized", lambda self, columns: grown.append(columns) or resized(self, columns)
    )
    # The first cache has room for three tokens behind the prompts, or half of that length, if that is more.
    monkeypatch.setattr(loop, "INITIAL_CACHE_LENGTH", 2 if task.processors.return_timestamps else SLOTS + 3)
    search = searching(config, task.processors)
    for limit in (NEW, 1, 2, 3, 4):
        assert_naive(search(params, states, task.padded, task.lengths, limits(task, limit)), task, limit)
    assert [columns for columns in grown if columns] == [NEW]


def test_the_search_stops_when_the_last_row_has_ended(text_task, config, params, states, monkeypatch):
    task, steps, process_logits = text_task, [], greedy.process_logits

    def counted(*arguments):
        jax.debug.callback(lambda: steps.append(1))
        return process_logits(*arguments)

    monkeypatch.setattr(greedy, "process_logits", counted)
    search = searching(config, task.processors)
    short = [row for row, scores in enumerate(task.logprobs) if len(scores) < NEW]
    for rows, wanted in ((short, max(len(task.logprobs[row]) for row in short)), ([*range(8)], NEW)):
        chosen = jnp.array((rows * 8)[:8])  # always eight rows: one program
        steps.clear()
        search(params, states[chosen], task.padded[chosen], task.lengths[chosen], None)
        jax.effects_barrier()
        assert len(steps) == wanted


def test_a_search_ends_where_the_positions_do(text_task, config, params, states):
    task = text_task
    search = searching(config, task.processors, new=config.max_target_positions)
    result = search(params, states, task.padded, task.lengths, None)
    room_B = config.max_target_positions - np.asarray(task.lengths)
    ended_B = (np.asarray(result.tokens_BT)[:, :-1] == task.processors.special.eot).any(axis=1)
    assert (np.asarray(result.length_B)[~ended_B] == room_B[~ended_B]).all()
    for row, said in enumerate(task.tokens):
        assert result.tokens_BT[row, : len(said)].tolist() == said


def test_prompts_must_leave_a_position(text_task, config, params, states):
    prompts = padded(text_task.prompts, config.max_target_positions, 0)
    with pytest.raises(ValueError, match="19 prompt tokens leave none of the model's 19 positions"):
        searching(config, text_task.processors)(params, states, prompts, text_task.lengths, None)


def test_a_row_of_limit_zero_is_idle(text_task, params, states):
    task = text_task
    limit_B = limits(task, NEW).at[3].set(0)
    result = task.search(params, states, task.padded, task.lengths, limit_B)
    assert result.length_B[3] == 0
    for row in set(range(8)) - {3}:
        assert result.tokens_BT[row, : len(task.tokens[row])].tolist() == task.tokens[row]
