"""Detection reads the language tokens after the start, and nothing else."""

import dataclasses

import numpy as np
import pytest

from flax_distil.decoding.language import language_probabilities
from flax_distil.model.assembly import bind_decoder
from tests.decoding.reference import log_softmax
from tests.model.programs import SCAN, compiled, decoding


def test_probabilities_are_those_of_the_languages_in_their_order(config, params, states, special):
    def detect(params, states):
        return language_probabilities(bind_decoder(config, SCAN, params["decoder"]), states, special)

    found = np.asarray(compiled(detect)(params, states))
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-6)
    start = np.full((len(states), 1), special.sot, np.int32)
    logits = np.asarray(decoding(config)(params, start, states))[:, 0]
    wanted = [np.exp(log_softmax(row[[44, 42, 43]])) for row in logits]  # German, English, French
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert len(set(found.argmax(axis=1).tolist())) > 1  # the states decide


def test_an_english_only_vocabulary_has_no_languages_to_tell_apart(config, params, states, special):
    english = dataclasses.replace(special, languages={}, transcribe=None, translate=None)
    with pytest.raises(ValueError, match="English-only vocabulary has no language tokens"):
        language_probabilities(bind_decoder(config, SCAN, params["decoder"]), states, english)
