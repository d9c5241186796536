"""Which samples of an evaluation are kept, and what of them."""

import numpy as np

from flax_distil.data.training.batches import Batch
from flax_distil.distillation.evaluation.predictions import (
    FOLLOWED_SAMPLES,
    WORST_SAMPLES,
    Prediction,
    batch_predictions,
    kept_predictions,
)


def prediction(position, errors=0):
    return Prediction(
        id=f"s:{position}", reference="", hypothesis="", errors=errors, words=9, position=position
    )


def test_rows_that_only_fill_a_batch_count_nowhere_and_long_texts_are_cut():
    batch = Batch(
        ids=["s:4", "s:7", ""],
        index_B=np.array([4, 7, -1]),
        references=["One two three.", "x " * 3000, "never"],
        valid_B=np.array([True, True, False]),
    )
    errors, found = batch_predictions(batch, ["one too three four", "x " * 3000, "heard"], str.lower)
    assert (errors.samples, errors.substitutions, errors.insertions) == (2, 2, 1)  # "three." is not "three"
    assert [(one.id, one.position, one.errors, one.words) for one in found] == [
        ("s:4", 4, 3, 3), ("s:7", 7, 0, 3000),
    ]  # fmt: skip
    assert len(found[1].reference) == 2000


def test_the_first_are_always_kept_and_of_the_others_the_worst():
    everything = [prediction(position, errors=position % 200) for position in range(500)]
    kept = kept_predictions(reversed(everything))
    assert [one.position for one in kept[:FOLLOWED_SAMPLES]] == list(range(FOLLOWED_SAMPLES))
    worst = [one.errors for one in kept[FOLLOWED_SAMPLES:]]
    assert worst == sorted(worst, reverse=True)
    assert len(worst) == WORST_SAMPLES
    assert worst[:2] == [199, 199]


def test_batch_by_batch_the_same_are_kept_as_at_once():
    everything = [prediction(position, errors=(position * 37) % 101) for position in range(300)]
    kept: list[Prediction] = []
    for first in range(0, 300, 16):
        kept = kept_predictions(kept + everything[first : first + 16])
    assert kept == kept_predictions(everything)


def test_samples_without_an_error_are_not_among_the_worst():
    assert len(kept_predictions([prediction(position) for position in range(100)])) == FOLLOWED_SAMPLES
