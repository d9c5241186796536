"""Recordings are read ahead of when they are asked for, and no further than is useful."""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.pipeline.inputs import load_ahead as module
from flax_distil.pipeline.inputs.load_ahead import read_ahead


def seconds(count: float) -> np.ndarray:
    return np.ones(round(count * SAMPLING_RATE), np.float32)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def counted(recording: Any, taken: list[int]) -> Iterator[tuple[int, Any]]:
    for number in itertools.count():
        taken.append(number)
        yield number, recording


def test_all_are_read_in_order_and_a_refused_one_is_in_its_place():
    given = [seconds(0.1), "nowhere.wav", *[seconds(0.2)] * 12]
    found = [one for one in read_ahead(enumerate(given)) if one is not None]
    assert [one.name for one in found] == list(range(14))
    assert [one.error is None for one in found] == [True, False, *[True] * 12]
    assert [len(one.samples) for one in found] == [1600, 0, *[3200] * 12]


@pytest.mark.parametrize(("length", "ahead"), [(0.01, module.MAX_RECORDINGS_AHEAD), (1.0, 3), (5.0, 1)])
def test_what_is_read_ahead_is_bounded_by_number_and_seconds(length, ahead, monkeypatch):
    monkeypatch.setattr(module, "MAX_SECONDS_AHEAD", 3.0)
    taken: list[int] = []
    reads = read_ahead(counted(seconds(length), taken))
    for number in range(1, 4):
        while next(reads) is None:
            pass
        until(lambda number=number: len(taken) >= number + ahead)
        time.sleep(0.02)
        assert len(taken) == number + ahead
    reads.close()


def test_an_iterator_that_waits_is_waited_for_no_longer_than_a_moment(monkeypatch):
    monkeypatch.setattr(module, "MAX_WAIT_SECONDS", 0.01)
    answers: queue.Queue[int] = queue.Queue()

    def waiting() -> Iterator[tuple[int, np.ndarray]]:
        for number in range(3):
            yield number, seconds(0.1)
            assert answers.get(timeout=10) == number

    names = []
    for one in read_ahead(waiting()):
        if one is not None:
            names.append(one.name)
        elif len(names) > answers.qsize():
            answers.put(names[-1])
    assert names == [0, 1, 2]


def test_what_the_iterator_raises_comes_behind_what_it_gave():
    def failing() -> Iterator[tuple[int, np.ndarray]]:
        yield 0, seconds(0.1)
        raise OSError("gone")

    found: list[Any] = []
    with pytest.raises(OSError, match="gone"):
        found.extend(read_ahead(failing()))
    assert [one.name for one in found if one is not None] == [0]


def test_what_reading_raises_is_raised_even_if_it_is_a_time_out(monkeypatch):
    def refuse(*_: Any, **__: Any) -> Any:
        raise TimeoutError("no answer")

    monkeypatch.setattr(module, "read_recording", refuse)
    with pytest.raises(TimeoutError, match="no answer"):
        next(one for one in read_ahead([(0, "name")]) if one is not None)


def test_no_thread_is_left_when_nobody_asks_any_more():
    before = threading.active_count()
    taken: list[int] = []
    reads = read_ahead(counted(seconds(0.1), taken))
    while next(reads) is None:
        pass
    reads.close()
    until(lambda: threading.active_count() <= before)
