"""Windows that begin when a row is free say what they say in batches of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.decoding import continuous, loop
from flax_distil.decoding.logits_processors import LogitsProcessors
from flax_distil.decoding.loop import DecodeLoop, generate
from flax_distil.decoding.options import SearchOptions
from flax_distil.decoding.types import GenerateInputs
from flax_distil.model.assembly import bind_decoder
from tests.model.programs import SCAN, compiled

NEW, SLOTS, ROWS, QUEUE = 12, 5, 3, 4
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32, attention summed in another order

SEARCHES = {
    "greedy": SearchOptions(),
    "samples": SearchOptions(best_of=2, top_k=30),
    "beams": SearchOptions(num_beams=3),
}


def windows(states, special, *, samples):
    """Return the eight windows of a batch, each with a prompt, a limit and a seed of its own."""
    language = list(special.languages.values())
    prompts = [
        [*[special.sot_prev, 5 + row][: 2 * (row % 2)], special.sot, language[row % 3]] for row in range(8)
    ]
    drawn = {
        "temperature_B": jnp.linspace(0.0, 1.5, 8), "seed_B": jnp.arange(8, dtype=jnp.int32)
    }  # fmt: skip
    return GenerateInputs(
        encoder_out_BSD=states,
        prompt_BP=jnp.array([prompt + [special.eot] * (SLOTS - len(prompt)) for prompt in prompts]),
        prompt_length_B=jnp.array([len(prompt) for prompt in prompts]),
        limit_B=jnp.array([NEW, 4, 0, NEW, 1, 9, NEW, 6]),
        **(drawn if samples else {}),
    )  # fmt: skip


def taken(tree, index):
    """Return some rows of a tree of arrays."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


@pytest.mark.parametrize("name", ["greedy", "samples", pytest.param("beams", marks=pytest.mark.slow)])
def test_windows_of_a_queue_say_what_they_say_in_one_batch(
    name, config, params, states, special, monkeypatch
):
    """Three rows, two calls of four windows; the cache grows and shrinks, and nothing is compiled twice."""
    monkeypatch.setattr(loop, "INITIAL_CACHE_LENGTH", SLOTS + 3)
    processors = LogitsProcessors(special=special, return_timestamps=True, suppress_tokens=(special.sot,))
    settings = {"processors": processors, "options": SEARCHES[name], "max_new_tokens": NEW}
    inputs = windows(states, special, samples=name == "samples")

    def whole(params, inputs):
        return generate(bind_decoder(config, SCAN, params["decoder"]), inputs, **settings)

    def loop_of(params, inputs):
        decoder = bind_decoder(config, SCAN, params["decoder"])
        return DecodeLoop.of_inputs(decoder, inputs, processors, SEARCHES[name], max_new_tokens=NEW)

    def rows_in_progress(params, inputs):
        made = loop_of(params, inputs)
        first = taken(inputs, slice(ROWS))
        return continuous.RowsInProgress.none(made.begin(first, made.sizes[0]))

    traced = []

    def decode(params, rows, inputs, ticket_M, most_left):
        traced.append(1)
        return continuous.decode_queue(loop_of(params, inputs), rows, inputs, ticket_M, most_left)

    wanted = compiled(whole)(params, inputs)
    program, rows = compiled(decode), compiled(rows_in_progress)(params, inputs)
    calls = [
        ([0, -1, 1, 2], [0, 1, 1, 2], ROWS),
        ([3, 4, 5, -1], [3, 4, 5, 0], 1),
        ([6, 7, -1, -1], [6, 7, 0, 0], 0),
    ]
    found, used, ran = {}, 0, 0
    for tickets, source, most_left in calls:
        queue = taken(inputs, jnp.array(source))
        rows, ended = program(params, rows, queue, jnp.array(tickets), jnp.array(most_left))
        assert (np.asarray(rows.ticket_B) >= 0).sum() <= most_left
        for place, ticket in enumerate(ended.ticket_R.tolist()):
            if ticket >= 0:
                assert ticket not in found
                found[ticket] = place, ended.output
        ran, used = ran + int(ended.row_steps_2[0]), used + int(ended.row_steps_2[1])
    assert sorted(found) == list(range(8))
    for row, (place, output) in found.items():
        assert output.tokens_BT[place].tolist() == wanted.tokens_BT[row].tolist()
        np.testing.assert_allclose(output.logprobs_BT[place], wanted.logprobs_BT[row], **CLOSE)
        np.testing.assert_allclose(output.avg_logprob_B[place], wanted.avg_logprob_B[row], **CLOSE)
        np.testing.assert_allclose(output.no_speech_prob_B[place], wanted.no_speech_prob_B[row], rtol=1e-3)
    assert len(traced) == 1
    assert 0 < used <= ran
