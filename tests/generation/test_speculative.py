"""A student's drafts change how often the teacher runs, and nothing that it says."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core import Params
from flax_distil.generation import DecodingRules, SearchOptions, SearchResult, search
from flax_distil.generation.speculative import SpeculativeResult, speculative_search
from flax_distil.model import WhisperConfig, bind_decoder
from tests.model.programs import SCAN, compiled

NEW = 12
SLOTS = 7  # of the prompts
DRAFTED = 3
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32, products of other shapes


@dataclasses.dataclass(frozen=True)
class Task:
    """Eight rows, prompts of three lengths, and two programs for them: with a student and without."""

    rules: DecodingRules
    padded: jax.Array
    lengths: jax.Array
    alone: Callable[..., SearchResult]
    drafted: Callable[..., SpeculativeResult]


def of_teacher(config, rules, *, new=NEW):
    def run(params, states, prompts, lengths, limit):
        return search(
            bind_decoder(config, SCAN, params["decoder"]), states, prompts, lengths,
            rules=rules, options=SearchOptions(), max_new_tokens=new, limit_B=limit,
        )  # fmt: skip

    return compiled(run)


def with_student(config, student_config, rules, *, new=NEW, drafted=DRAFTED):
    """Return a program of its own, traced anew."""

    def run(params, student, states, prompts, lengths, limit, temperature=None, seed=None):
        return speculative_search(
            bind_decoder(config, SCAN, params["decoder"]),
            bind_decoder(student_config, SCAN, student["decoder"]),
            states, prompts, lengths, rules=rules, num_assistant_tokens=drafted, max_new_tokens=new,
            limit_B=limit, temperature_B=temperature, seed_B=seed,
        )  # fmt: skip

    return compiled(run)


@pytest.fixture(scope="module")
def student_config(config) -> WhisperConfig:
    return dataclasses.replace(config, decoder_layers=1)


@pytest.fixture(scope="module")
def students(params) -> list[Params]:
    """The teacher's first layer, which often agrees, and the same with noise, which seldom does."""
    first = {**params["decoder"], "layers": jax.tree.map(lambda leaf: leaf[:1], params["decoder"]["layers"])}
    noise = np.random.default_rng(5)
    noisy = jax.tree.map(lambda leaf: leaf + jnp.asarray(noise.normal(size=leaf.shape), jnp.float32), first)
    return [{"decoder": first}, {"decoder": noisy}]


@pytest.fixture(scope="module", params=["text", "timestamps"])
def task(request, config, student_config, special) -> Task:
    timestamps = request.param == "timestamps"
    previous = [[], [special.sot_prev, 5], [special.sot_prev, 30, 8], []]
    language = list(special.languages.values())
    end = [] if timestamps else [special.no_timestamps]
    prompts = [
        [*previous[row % 4], special.sot, language[row % 3], special.transcribe, *end] for row in range(7)
    ]
    prompts.append([special.sot])
    rules = DecodingRules(
        special=special, suppress_tokens=(special.sot, *language, special.no_speech),
        begin_suppress_tokens=(special.eot,), return_timestamps=timestamps, max_initial_timestamp_index=9,
    )  # fmt: skip
    return Task(
        rules=rules,
        padded=jnp.array([row + [special.eot] * (SLOTS - len(row)) for row in prompts], jnp.int32),
        lengths=jnp.array([len(row) for row in prompts], jnp.int32),
        alone=of_teacher(config, rules),
        drafted=with_student(config, student_config, rules),
    )


def assert_same(result, wanted):
    assert result.tokens_BT.tolist() == wanted.tokens_BT.tolist()
    assert result.length_B.tolist() == wanted.length_B.tolist()
    for name in ("logprobs_BT", "avg_logprob_B", "no_speech_prob_B"):
        np.testing.assert_allclose(getattr(result, name), getattr(wanted, name), **CLOSE)


LIMITS = ([NEW] * 8, [1, 2, 3, 4, 5, 6, 7, 0], [0, NEW, 0, 3, NEW + 9, 1, 8, 9])


@pytest.mark.parametrize("limit", LIMITS)
def test_rows_say_what_the_teacher_alone_says(task, params, students, states, limit):
    limit = jnp.array(limit, jnp.int32)
    wanted = task.alone(params, states, task.padded, task.lengths, limit)
    for student in students:
        assert_same(task.drafted(params, student, states, task.padded, task.lengths, limit), wanted)
