"""Which windows make a batch, and when another recording is taken; no model is needed."""

from typing import Any

from flax_distil.transcription.sequential import work_queue
from flax_distil.transcription.sequential.recording import SequentialRecording
from flax_distil.transcription.sequential.work_queue import WorkQueue


class Part(SequentialRecording):
    """Stands for a part of a recording."""

    window_frames = property(lambda self: self.length)
    is_finished = property(lambda self: self.done)
    has_windows = True

    def __init__(self, window_frames: int = 3000, language: str | None = "en"):
        self.length, self.language, self.done = window_frames, language, False


class Whole:
    """Stands for a recording of some parts."""

    def __init__(self, *parts: Part, frames: int = 3000):
        self.parts, self.frames = parts, frames

    @property
    def is_finished(self) -> bool:
        return all(part.is_finished for part in self.parts)

    def take_segments(self) -> Any: ...

    def transcript(self) -> Any: ...


def filled(queue: WorkQueue, *lengths: int) -> None:
    for number, frames in enumerate(lengths):
        queue.add(number, Whole(Part(window_frames=frames)))


def names(batch: Any) -> list[int]:
    return [row.name for row in batch]


def test_a_long_window_is_not_decoded_beside_short_ones():
    queue = WorkQueue(4)
    filled(queue, 3000, 300, 280, 320, 310)
    assert names(queue.take_batch()) == [0]
    assert names(queue.take_batch()) == [1, 2, 3, 4]
    assert not queue


def test_windows_of_one_kind_share_a_batch_whatever_stands_between_them():
    queue = WorkQueue(4)
    filled(queue, 3000, 300, 2000, 100, 1200, 2400, 3000)
    assert names(queue.take_batch()) == [0, 2, 4, 5]
    assert names(queue.take_batch()) == [1]


def test_recordings_are_taken_until_the_next_batch_is_full():
    queue = WorkQueue(2)
    assert queue.has_room
    filled(queue, 3000)
    assert queue.has_room
    queue.add(1, Whole(Part(window_frames=300)))
    assert queue.has_room  # the batch of the first is not full
    queue.add(2, Whole(Part()))
    assert not queue.has_room


def test_two_batches_wait_at_most():
    queue = WorkQueue(2)
    filled(queue, 3000, 300, 300, 300)
    assert not queue.has_room


def test_recordings_under_way_are_bounded_by_their_length(monkeypatch):
    monkeypatch.setattr(work_queue, "MOST_SECONDS", 100.0)
    queue = WorkQueue(8)
    recording = Whole(Part(), frames=10_000)
    queue.add(0, recording)
    assert not queue.has_room
    [row] = queue.take_batch()
    assert queue.has_room  # nothing waits, so one more is taken whatever its length
    queue.put_back(row)
    assert not queue.has_room
    queue.forget(recording)
    assert queue.has_room


def test_a_row_that_has_another_window_waits_behind_the_others():
    queue = WorkQueue(1)
    filled(queue, 3000, 3000)
    [row] = queue.take_batch()
    queue.put_back(row)
    assert names(queue.take_batch()) == [1]
    [row] = queue.take_batch()
    row.part.done = True
    queue.put_back(row)
    assert not queue


def test_parts_wait_for_the_language_of_the_first_or_share_its_batch():
    first, second, last = Part(language=None), Part(language=None), Part(language=None, window_frames=500)
    queue = WorkQueue(4)
    queue.add("short", Whole(Part(window_frames=500)))
    queue.add("parts", Whole(first, second, last))
    assert [row.part for row in queue.take_batch()][1:] == []
    assert [row.part for row in queue.take_batch()] == [first, second]
