import random

import pytest

from flax_distil.metrics.word_diff import DiffPart, word_diff
from flax_distil.metrics.word_errors import word_errors


def lower(text: str) -> str:
    return text.lower()


def test_a_diff_by_hand():
    parts = word_diff("The cat sat on the mat we own", "the cat sit on mat we today own", lower)
    assert parts == [
        DiffPart("equal", ("the", "cat"), ("the", "cat")),
        DiffPart("substitute", ("sat",), ("sit",)),
        DiffPart("equal", ("on",), ("on",)),
        DiffPart("delete", ("the",), ()),
        DiffPart("equal", ("mat", "we"), ("mat", "we")),
        DiffPart("insert", (), ("today",)),
        DiffPart("equal", ("own",), ("own",)),
    ]


def test_without_a_reference_or_a_prediction_all_is_inserted_or_deleted():
    assert word_diff("", "a b", lower) == [DiffPart("insert", (), ("a", "b"))]
    assert word_diff("a b", "", lower) == [DiffPart("delete", ("a", "b"), ())]
    assert word_diff("", " ", lower) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_parts_are_the_texts_and_their_counts_the_errors(seed):
    generator = random.Random(seed)
    wanted, heard = (" ".join(generator.choices("abcd", k=40)) for _ in range(2))
    parts = word_diff(wanted, heard, lower)
    assert [word for part in parts for word in part.reference] == wanted.split()
    assert [word for part in parts for word in part.prediction] == heard.split()
    counts = word_errors([wanted], [heard], lower)
    found = {kind: sum(max(map(len, part[1:])) for part in parts if part.kind == kind) for kind in
             ("equal", "substitute", "delete", "insert")}  # fmt: skip
    assert found == {
        "equal": counts.hits, "substitute": counts.substitutions, "delete": counts.deletions,
        "insert": counts.insertions,
    }  # fmt: skip
