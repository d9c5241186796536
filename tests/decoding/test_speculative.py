"""A student's drafts change how often the teacher runs, and nothing that it says."""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core.arrays import Params
from flax_distil.decoding import drafting, loop
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.decoding.loop import decode_to_the_end, generate
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.speculative import SpeculativeLoop
from flax_distil.decoding.types import GenerateInputs, GenerateOutput, SpeculativeOutput
from flax_distil.model.assembly import bind_decoder
from flax_distil.model.cache import DecoderCache
from flax_distil.model.config import WhisperConfig
from tests.decoding.reference import log_softmax, ruled
from tests.model.programs import SCAN, compiled, decoding

NEW = 12
SLOTS = 7  # of the prompts
DRAFTED = 3
GREEDY = SearchOptions()
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32, products of other shapes


@dataclasses.dataclass(frozen=True)
class Task:
    """Eight rows, prompts of three lengths, and two programs for them: with a student and without."""

    processors: LogitsProcessors
    padded: jax.Array
    lengths: jax.Array
    alone: Callable[..., GenerateOutput]
    drafted: Callable[..., SpeculativeOutput]


def of_teacher(config, processors, *, new=NEW):
    def run(params, states, prompts, lengths, limit):
        return generate(
            bind_decoder(config, SCAN, params["decoder"]),
            GenerateInputs(states, prompts, lengths, limit_B=limit),
            processors=processors, options=GREEDY, max_new_tokens=new,
        )  # fmt: skip

    return compiled(run)


def with_student(config, student_config, processors, *, new=NEW, drafted=DRAFTED, options=GREEDY):
    """Return a program of its own, traced anew."""

    def run(params, student, states, prompts, lengths, limit, temperature=None, seed=None):
        loop = SpeculativeLoop(
            bind_decoder(config, SCAN, params["decoder"]),
            bind_decoder(student_config, SCAN, student["decoder"]),
            processors, options,
            prompt_slots=prompts.shape[1], max_new_tokens=new, num_assistant_tokens=drafted,
        )  # fmt: skip
        return decode_to_the_end(
            loop,
            GenerateInputs(states, prompts, lengths, limit_B=limit, temperature_B=temperature, seed_B=seed),
        )

    return compiled(run)


@pytest.fixture(scope="module")
def student_config(config) -> WhisperConfig:
    return dataclasses.replace(config, decoder_layers=3)


def student_of(params: Params, scale: float) -> Params:
    """Return the teacher with one more layer, which adds this much of what it finds."""
    layers = params["decoder"]["layers"]
    added = jax.tree.map(lambda leaf: leaf[:1], layers)
    out = (added["self_attention"]["out"], added["cross_attention"]["out"], added["fc2"])
    for part in out:
        part |= {name: scale * leaf for name, leaf in part.items()}
    stacked = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), layers, added)
    return {"decoder": {**params["decoder"], "layers": stacked}}


@pytest.fixture(scope="module")
def students(params) -> list[Params]:
    """One that says what the teacher says, one that often does, and one that seldom does."""
    return [student_of(params, scale) for scale in (0.0, 0.5, 3.0)]


def make_task(config, student_config, special, *, timestamps) -> Task:
    previous = [[], [special.sot_prev, 5], [special.sot_prev, 30, 8], []]
    language = list(special.languages.values())
    end = [] if timestamps else [special.no_timestamps]
    prompts = [
        [*previous[row % 4], special.sot, language[row % 3], special.transcribe, *end] for row in range(7)
    ]
    prompts.append([special.sot])
    # Without their grammar timestamps are never drafted: here the teacher does not say any either.
    suppressed = (special.sot, *language, special.no_speech)
    processors = LogitsProcessors(
        special=special,
        suppress_tokens=suppressed if timestamps else tuple(range(special.eot + 1, special.vocab_size)),
        begin_suppress_tokens=(special.eot,),
        return_timestamps=timestamps,
        max_initial_timestamp_index=9,
    )
    return Task(
        processors=processors,
        padded=jnp.array([row + [special.eot] * (SLOTS - len(row)) for row in prompts], jnp.int32),
        lengths=jnp.array([len(row) for row in prompts], jnp.int32),
        alone=of_teacher(config, processors),
        drafted=with_student(config, student_config, processors),
    )


@pytest.fixture(scope="module")
def text_task(config, student_config, special) -> Task:
    return make_task(config, student_config, special, timestamps=False)


@pytest.fixture(scope="module")
def timestamp_task(config, student_config, special) -> Task:
    return make_task(config, student_config, special, timestamps=True)


@pytest.fixture(params=["text_task", "timestamp_task"])
def task(request) -> Task:
    return request.getfixturevalue(request.param)


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


def test_a_student_that_equals_the_teacher_is_always_right(task, params, students, states):
    limit = jnp.full(8, NEW, jnp.int32)
    result = task.drafted(params, students[0], states, task.padded, task.lengths, limit)
    assert result.accepted_B.tolist() == result.drafted_B.tolist()
    emitted, rounds = np.asarray(result.emitted_B), np.asarray(result.rounds_B)
    assert (rounds >= -(-emitted // (DRAFTED + 1))).all()
    assert rounds.sum() < emitted.sum()
    assert (result.length_B < emitted).any()


def test_what_was_drafted_and_accepted_is_counted(task, params, students, states):
    limit = jnp.array([NEW, NEW, 1, 0, NEW, 5, NEW, NEW], jnp.int32)
    rates = []
    for student in students:
        result = task.drafted(params, student, states, task.padded, task.lengths, limit)
        rounds, drafted, accepted, emitted = (
            np.asarray(getattr(result, f"{name}_B")) for name in ("rounds", "drafted", "accepted", "emitted")
        )
        assert rounds[3] == drafted[3] == accepted[3] == emitted[3] == 0
        assert (rounds[2], drafted[2], emitted[2]) == (1, 1, 1)
        assert (accepted <= drafted).all()
        assert (rounds <= drafted).all()
        assert (drafted <= DRAFTED * rounds).all()
        # Every round emits what it accepts and one more, but the last one where a draft ends the row.
        assert ((emitted == accepted + rounds) | (emitted == accepted + rounds - 1)).all()
        rates.append(accepted.sum() / drafted.sum())
    assert rates[0] == 1
    assert 0 < min(rates[1:]) < 1


@pytest.mark.slow
def test_drafts_of_few_tokens_change_nothing_but_their_acceptance(
    text_task, config, student_config, params, students, states, monkeypatch
):
    limit = jnp.full(8, NEW, jnp.int32)
    whole = text_task.drafted(params, students[1], states, text_task.padded, text_task.lengths, limit)
    monkeypatch.setattr(drafting, "DRAFT_TEXT_TOKENS", 3)
    few = with_student(config, student_config, text_task.processors)(
        params, students[1], states, text_task.padded, text_task.lengths, limit
    )
    assert_same(few, whole)
    assert few.accepted_B.sum() <= whole.accepted_B.sum()


@pytest.mark.slow
def test_a_draft_may_reach_beyond_the_last_position(
    text_task, config, student_config, params, students, states
):
    new = config.max_target_positions
    wanted = of_teacher(config, text_task.processors, new=new)(
        params, states, text_task.padded, text_task.lengths, None
    )
    drafted = with_student(config, student_config, text_task.processors, new=new, drafted=5)
    for student in students:
        assert_same(drafted(params, student, states, text_task.padded, text_task.lengths, None), wanted)
    assert (np.asarray(wanted.length_B) == config.max_target_positions - np.asarray(text_task.lengths)).any()


@pytest.mark.slow
def test_caches_grow_when_no_draft_fits(
    timestamp_task, config, student_config, params, students, states, monkeypatch
):
    limit = jnp.full(8, NEW, jnp.int32)
    wanted = timestamp_task.alone(params, states, timestamp_task.padded, timestamp_task.lengths, limit)
    monkeypatch.setattr(loop, "INITIAL_CACHE_LENGTH", SLOTS + DRAFTED + 2)
    grown = []
    resized = DecoderCache.resized
    monkeypatch.setattr(
        DecoderCache, "resized", lambda cache, slots: grown.append(slots) or resized(cache, slots)
    )
    drafted = with_student(config, student_config, timestamp_task.processors)
    assert_same(
        drafted(params, students[1], states, timestamp_task.padded, timestamp_task.lengths, limit), wanted
    )
    assert [slots for slots in grown if slots] == [SLOTS + NEW + DRAFTED] * 2


@pytest.mark.parametrize(
    "options", [pytest.param(GREEDY, marks=pytest.mark.slow), SearchOptions(top_k=12, top_p=0.8)]
)
def test_draws_at_a_temperature_have_the_teachers_distribution(
    config, student_config, params, students, states, special, options
):
    """The first two tokens of many equal rows, against their exact probabilities."""
    rows, temperature, rounds = 256, 1.3, 16
    processors = LogitsProcessors(
        special=special, suppress_tokens=(special.sot, 7), begin_suppress_tokens=(special.eot,)
    )
    prompt = jnp.tile(jnp.array([[special.sot, special.no_timestamps]], jnp.int32), (rows, 1))
    length, limit = jnp.full(rows, 2, jnp.int32), jnp.full(rows, 2, jnp.int32)
    same = jnp.tile(states[:1], (rows, 1, 1))
    drafted = with_student(config, student_config, processors, new=2, drafted=2, options=options)
    say = decoding(config)

    def exact(said):
        tokens = jnp.concatenate([prompt[:1], jnp.array([said], jnp.int32).reshape(1, -1)], axis=1)
        tokens = jnp.pad(tokens, [(0, 0), (0, 4 - tokens.shape[1])])
        logits = np.asarray(say(params, tokens, states[:1]))[0, 1 + len(said)]
        return probabilities(ruled(processors, logits, said) / temperature, options)

    found = []
    for index in range(rounds):
        seeds = jnp.arange(rows, dtype=jnp.int32) + index * rows
        result = drafted(params, students[1], same, prompt, length, limit, jnp.full(rows, temperature), seeds)
        found.append(np.asarray(result.tokens_BT))
    found = np.concatenate(found)
    assert 0 < int(result.accepted_B.sum()) < int(result.drafted_B.sum())  # both ways of emitting are tried
    first, count = exact([]), len(found)
    assert_frequencies(np.bincount(found[:, 0], minlength=special.vocab_size) / count, first, count)
    likeliest = int(first.argmax())
    after = found[found[:, 0] == likeliest, 1]
    second = exact([likeliest])
    assert_frequencies(np.bincount(after, minlength=special.vocab_size) / len(after), second, len(after))


def probabilities(scores, options):
    """Return what is drawn from: of the likeliest tokens those whose probabilities add to ``top_p``."""
    order = np.argsort(-scores, kind="stable")[: options.top_k]
    kept = np.exp(log_softmax(scores[order]))
    kept = np.where(np.cumsum(kept) - kept < (options.top_p or 2), kept, 0)
    found = np.zeros(len(scores))
    found[order] = kept / kept.sum()
    return found


def assert_frequencies(found, probabilities, count):
    """Compare with standard errors: of 120 tokens none is 5 away by chance."""
    error = np.sqrt(probabilities * (1 - probabilities) / count) + 1e-6
    assert (np.abs(found - probabilities) < 5 * error + 1 / count).all()
    assert (probabilities > 0.02).sum() > 3  # a distribution, not one token
    assert found[probabilities == 0].sum() == 0


def test_rows_at_temperature_zero_take_the_likeliest_beside_rows_that_draw(
    timestamp_task, params, students, states
):
    limit = jnp.full(8, NEW, jnp.int32)
    wanted = timestamp_task.alone(params, states, timestamp_task.padded, timestamp_task.lengths, limit)
    temperature = jnp.array([0, 1, 0, 0.5, 0, 2, 0, 1], jnp.float32)
    seed = jnp.arange(8, dtype=jnp.int32)
    arguments = params, students[1], states, timestamp_task.padded, timestamp_task.lengths
    result = timestamp_task.drafted(*arguments, limit, temperature, seed)
    for row in (0, 2, 4, 6):
        assert result.tokens_BT[row].tolist() == wanted.tokens_BT[row].tolist()
    # What a row draws depends on its seed and on nothing else in the batch.
    order = jnp.array([5, 4, 3, 2, 1, 0, 7, 6])
    turned = timestamp_task.drafted(
        params,
        students[1],
        *(
            x[order]
            for x in (states, timestamp_task.padded, timestamp_task.lengths, limit, temperature, seed)
        ),
    )
    assert turned.tokens_BT.tolist() == result.tokens_BT[order].tolist()
    other = timestamp_task.drafted(*arguments, limit, temperature, seed + 100)
    changed = {row for row in range(8) if other.tokens_BT[row].tolist() != result.tokens_BT[row].tolist()}
    assert changed
    assert changed <= {1, 3, 5, 7}


def test_prompts_must_leave_a_position(text_task, config, params, students, states):
    prompts = jnp.zeros((8, config.max_target_positions), jnp.int32)
    with pytest.raises(ValueError, match="19 prompt tokens leave none of the model's 19 positions"):
        text_task.drafted(params, students[1], states, prompts, text_task.lengths, None)


@pytest.mark.slow
def test_repetition_rules_and_forced_beginnings_hold_in_every_search(
    config, student_config, special, params, students, states
):
    begin = special.timestamp_begin
    processors = LogitsProcessors(
        special=special, suppress_tokens=(special.sot, special.no_speech), return_timestamps=True,
        max_initial_timestamp_index=9, repetition_penalty=1.3, no_repeat_ngram_size=2,
    )  # fmt: skip
    with_prefix = [special.sot, special.languages["de"], special.transcribe, begin, 7, 8]
    rows = [with_prefix if row % 2 else with_prefix[:3] for row in range(8)]
    padded = jnp.array([row + [special.eot] * (SLOTS - len(row)) for row in rows], jnp.int32)
    lengths = jnp.array([len(row) for row in rows], jnp.int32)
    given = jnp.array([3 * (row % 2) for row in range(8)], jnp.int32)

    def run(params, states, options):
        return generate(
            bind_decoder(config, SCAN, params["decoder"]),
            GenerateInputs(states, padded, lengths, prefix_length_B=given),
            processors=processors, options=options, max_new_tokens=NEW,
        )  # fmt: skip

    def drafted(params, student, states):
        loop = SpeculativeLoop(
            bind_decoder(config, SCAN, params["decoder"]),
            bind_decoder(student_config, SCAN, student["decoder"]),
            processors, GREEDY,
            prompt_slots=SLOTS, max_new_tokens=NEW, num_assistant_tokens=DRAFTED,
        )  # fmt: skip
        return decode_to_the_end(loop, GenerateInputs(states, padded, lengths, prefix_length_B=given))

    greedy = compiled(lambda params, states: run(params, states, GREEDY))(params, states)
    beams = compiled(lambda params, states: run(params, states, SearchOptions(num_beams=3)))(params, states)
    assisted = compiled(drafted)(params, students[1], states)
    assert assisted.tokens_BT.tolist() == greedy.tokens_BT.tolist()
    for found in (greedy, beams):
        for row in range(8):
            tokens = [*rows[row][3:], *found.tokens_BT[row, : int(found.length_B[row])].tolist()]
            pairs = list(itertools.pairwise(tokens))
            assert len(pairs) == len(set(pairs))
            assert tokens[0] >= begin
            if row % 2 and len(tokens) > 3:
                assert tokens[3] != begin  # the beginning has opened a segment
    assert int(greedy.length_B.max()) > 4
