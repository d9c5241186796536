"""Work is started ahead of what waits for it."""

import contextlib
import itertools

import pytest

from flax_distil.core.prefetch import lookahead, prefetch, prefetch_map


def test_the_next_item_is_taken_before_one_is_given():
    events = []

    def started():
        for number in range(3):
            events.append(f"start {number}")
            yield number

    for number in lookahead(started()):
        events.append(f"wait {number}")
    assert events == ["start 0", "start 1", "wait 0", "start 2", "wait 1", "wait 2"]


def test_nothing_and_items_that_are_none_pass():
    assert list(lookahead([])) == []
    assert list(lookahead([None, 0, None])) == [None, 0, None]


def test_results_come_in_order_and_no_more_than_asked_for_are_started():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    results = prefetch_map(lambda number: number**2, items(), threads=3, ahead=5)
    assert [next(results), next(results)] == [0, 1]
    assert taken == [*range(7)]
    assert list(results) == [number**2 for number in range(2, 20)]
    assert list(prefetch_map(str, range(3), threads=0, ahead=5)) == ["0", "1", "2"]


def test_an_iterator_runs_ahead_and_its_error_comes_in_its_turn():
    def failing():
        yield from range(3)
        raise OSError("lost")

    found = []
    with pytest.raises(OSError, match="lost"):
        found.extend(prefetch(failing(), ahead=5))
    assert found == [0, 1, 2]
    assert list(prefetch(iter("abc"), ahead=2)) == ["a", "b", "c"]


def test_what_runs_ahead_is_closed_with_its_reader():
    closed = []

    def endless():
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    with contextlib.closing(prefetch(endless(), ahead=2)) as numbers:
        assert next(numbers) == 0
    assert closed == [True]
