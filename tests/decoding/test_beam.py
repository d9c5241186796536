"""Beams are those of openai/whisper's own class, fed with whole sequences run again for every token."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from whisper.decoding import BeamSearchDecoder, MaximumLikelihoodRanker

from flax_distil.decoding import loop
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.decoding.loop import generate
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.types import GenerateInputs
from flax_distil.model.assembly import bind_decoder
from tests.decoding.reference import ruled
from tests.model.programs import SCAN, compiled, decoding

NEW, SLOTS, ROWS = 10, 7, 5
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32, attention summed in another order


class Naive:
    """One row at a time: no cache, no batch, and the reference's own choice of beams."""

    def __init__(self, config, params, states, processors, prompts):
        program, states = decoding(config), np.asarray(states)
        self.say = lambda tokens, row: np.asarray(
            program(params, jnp.asarray(tokens, jnp.int32), np.repeat(states[row : row + 1], len(tokens), 0))
        )
        self.processors, self.prompts = processors, prompts

    def decode(self, row: int, options: SearchOptions, limit: int) -> tuple[list[int], float]:
        """Return tokens and average log-probability as ``whisper.decode`` works them out."""
        beams, end, prompt = options.num_beams, self.processors.special.eot, self.prompts[row]
        decoder = BeamSearchDecoder(beams, end, _NoCache(), options.patience)
        tokens, total = torch.tensor([prompt] * beams), torch.zeros(beams)
        for _ in range(limit):
            padded = np.full((8, SLOTS + NEW), end)  # always eight: one program
            padded[:beams, : tokens.shape[1]] = tokens
            logits = self.say(padded, row)[:beams, tokens.shape[1] - 1]
            scores = [
                ruled(self.processors, one, said[len(prompt) :])
                for one, said in zip(logits, tokens.tolist(), strict=True)
            ]
            tokens, completed = decoder.update(
                tokens, torch.tensor(np.stack(scores), dtype=torch.float32), total
            )
            if completed:
                break
        found, totals = decoder.finalize(tokens[None], total[None])
        said = [one[len(prompt) : one.tolist().index(end, len(prompt))] for one in found[0]]
        best = MaximumLikelihoodRanker(options.length_penalty).rank([said], totals)[0]
        return said[best].tolist(), totals[0][best] / (len(said[best]) + 1)


class _NoCache:
    def rearrange_kv_cache(self, source_indices):
        """Whole sequences are run again."""


@dataclasses.dataclass(frozen=True)
class Task:
    naive: Naive
    processors: LogitsProcessors
    arguments: tuple


def make_task(config, params, states, special, *, timestamps) -> Task:
    language = list(special.languages.values())
    previous = [[], [special.sot_prev, 5], [special.sot_prev, 30, 8]]
    prompts = [
        [*previous[row % 3], special.sot, language[row % 3], special.transcribe]
        + ([] if timestamps else [special.no_timestamps])
        for row in range(ROWS)
    ]
    processors = LogitsProcessors(
        special=special, suppress_tokens=(special.sot, *language, special.no_speech),
        begin_suppress_tokens=(special.eot,), return_timestamps=timestamps, max_initial_timestamp_index=9,
    )  # fmt: skip
    padded = jnp.array([prompt + [special.eot] * (SLOTS - len(prompt)) for prompt in prompts], jnp.int32)
    lengths = jnp.array([len(prompt) for prompt in prompts], jnp.int32)
    naive = Naive(config, params, states, processors, prompts)
    return Task(naive, processors, (params, states[:ROWS], padded, lengths))


@pytest.fixture(scope="module")
def tasks(config, params, states, special) -> dict[str, Task]:
    return {
        "text": make_task(config, params, states, special, timestamps=False),
        "timestamps": make_task(config, params, states, special, timestamps=True),
    }


def searching(config, task, options):
    def run(params, states, prompts, lengths, limit):
        decoder = bind_decoder(config, SCAN, params["decoder"])
        return generate(
            decoder, GenerateInputs(states, prompts, lengths, limit_B=limit),
            processors=task.processors, options=options, max_new_tokens=NEW,
        )  # fmt: skip

    program = compiled(run)
    return lambda limits: program(*task.arguments, jnp.array(limits, jnp.int32))


def assert_naive(result, task, options, limits) -> list[list[int]]:
    said = []
    for row, limit in enumerate(limits):
        tokens, avg_logprob = task.naive.decode(row, options, limit)
        length = len(tokens)
        assert result.tokens_BT[row].tolist() == tokens + [task.processors.special.eot] * (NEW - length)
        assert result.length_B[row] == length
        np.testing.assert_allclose(result.avg_logprob_B[row], avg_logprob, **CLOSE)
        np.testing.assert_allclose(result.logprobs_BT[row].sum(), avg_logprob * (length + 1), **CLOSE)
        said.append(tokens)
    return said


# The reference hands a torch tensor to NumPy's argsort.
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timestamps", SearchOptions(num_beams=4)),
        ("text", SearchOptions(num_beams=3, patience=2.0, length_penalty=0.6)),
        pytest.param("text", SearchOptions(num_beams=5), marks=pytest.mark.slow),
        pytest.param("timestamps", SearchOptions(num_beams=5, patience=0.5), marks=pytest.mark.slow),
    ],
)
def test_beams_are_those_of_openai_whatever_the_limit(config, tasks, name, options):
    task = tasks[name]
    program = searching(config, task, options)
    lengths = set()
    for limits in ([NEW] * ROWS, [3, NEW, 1, 6, 2]):
        lengths |= {len(said) for said in assert_naive(program(limits), task, options, limits)}
    assert len(lengths) > 2


def test_a_cache_that_grows_and_idle_neighbors_change_nothing(config, tasks, monkeypatch):
    task, options = tasks["timestamps"], SearchOptions(num_beams=4)
    wanted = searching(config, task, options)([NEW] * ROWS)
    monkeypatch.setattr(loop, "INITIAL_CACHE_LENGTH", SLOTS + 3)
    grown = searching(config, task, options)([0, NEW, 0, NEW, NEW])
    assert grown.length_B[0] == grown.length_B[2] == 0
    for row in (1, 3, 4):
        assert grown.tokens_BT[row].tolist() == wanted.tokens_BT[row].tolist()
        np.testing.assert_allclose(grown.avg_logprob_B[row], wanted.avg_logprob_B[row], **CLOSE)
