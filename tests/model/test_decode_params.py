"""The weights of a decoder, as decoding reads them."""

import jax
import numpy as np
import pytest

from flax_distil.core.tree import flatten
from flax_distil.model.assembly import bind_decoder, decode_shapes, has_decode_layout, to_decode_params
from tests.model.programs import SCAN, compiled


@pytest.fixture(scope="module")
def on_host(params):
    return jax.tree.map(np.asarray, params["decoder"])


def test_they_have_the_shapes_that_are_announced(config, params):
    announced = flatten(decode_shapes(config)["decoder"])
    made = flatten(to_decode_params(params["decoder"]))
    assert {path: leaf.shape for path, leaf in made.items()} == {
        p: leaf.shape for p, leaf in announced.items()
    }


def test_on_the_host_nothing_is_copied(on_host):
    stacked, apart = flatten(on_host), flatten(to_decode_params(on_host))
    for path, leaf in apart.items():
        parts = path.split("/")
        source = "/".join(part for part in parts if not part.isdigit())
        assert np.shares_memory(leaf, stacked[source]), path


def test_they_are_made_once(on_host):
    assert not has_decode_layout(on_host)
    made = to_decode_params(on_host)
    assert has_decode_layout(made)
    assert to_decode_params(made) is made


@pytest.mark.parametrize("length", [3, 12])  # fewer tokens than a head has features (4), and more
def test_heads_ask_the_same_of_the_states(config, params, tokens, states, length):
    def look(weights, tokens, states):
        decoder = bind_decoder(config, SCAN, weights)
        return decoder.forward_with_alignment_heads(tokens, states, ((0, 1), (2, 0), (2, 3)))

    program = compiled(look)
    stacked, apart = params["decoder"], to_decode_params(params["decoder"])
    one, other = (program(weights, tokens[:, :length], states) for weights in (stacked, apart))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)
