"""Pushes in the background: the latest one wins, and none of them ends or holds up whoever asked for it."""

import threading
import time

import pytest

from flax_distil.checkpoints.hub import background_push, retries
from flax_distil.checkpoints.hub.background_push import BackgroundPush
from flax_distil.core.errors import InputError


class SlowPush:
    """Notes the steps that are pushed, each of which lasts until it is released."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.begun, self.released = threading.Event(), threading.Event()

    def __call__(self, step: int, stop: threading.Event) -> None:
        self.steps.append(step)
        self.begun.set()
        assert self.released.wait(10)


def test_while_one_push_runs_only_the_latest_waits():
    push = SlowPush()
    pushes = BackgroundPush(push, name="'me/student'")
    pushes.request(1)
    assert push.begun.wait(10)
    for step in (2, 3, 4):
        pushes.request(step)
    push.released.set()
    while push.steps != [1, 4]:
        time.sleep(0.001)
    pushes.finish()


def test_the_end_waits_for_the_push_that_runs_and_leaves_out_the_next():
    push = SlowPush()
    pushes = BackgroundPush(push, name="'me/student'")
    pushes.request(1)
    assert push.begun.wait(10)
    pushes.request(2)
    threading.Timer(0.05, push.released.set).start()
    pushes.finish()
    assert push.steps == [1]


def test_a_run_that_must_end_does_not_wait_for_the_hub(monkeypatch):
    monkeypatch.setattr(background_push, "_LEAVING_SECONDS", 0.05)
    push = SlowPush()
    pushes = BackgroundPush(push, name="'me/student'")
    pushes.request(1)
    assert push.begun.wait(10)
    start = time.monotonic()
    pushes.abandon()
    assert time.monotonic() - start < 5
    push.released.set()


def test_a_push_that_fails_is_told_and_the_next_one_is_tried(caplog):
    tried: list[int] = []

    def fail(step: int, stop: threading.Event) -> None:
        tried.append(step)
        raise OSError("the Hub is away")

    pushes = BackgroundPush(fail, name="'me/student'")
    for step in (1, 2):
        pushes.request(step)
        while step not in tried:
            time.sleep(0.001)
    pushes.finish()
    assert tried == [1, 2]
    assert (
        "step 2 could not be pushed to 'me/student' (OSError: the Hub is away): training goes on"
        in caplog.text
    )


def test_requests_are_repeated_until_they_succeed_unless_that_is_hopeless_or_in_vain(monkeypatch):
    monkeypatch.setattr(retries, "PAUSES_SECONDS", (0.001,) * 3)
    attempts: list[Exception] = [ConnectionError("cut"), TimeoutError("slow")]

    def attempt() -> str:
        if attempts:
            raise attempts.pop(0)
        return "done"

    assert retries.patiently(attempt, action="the upload") == "done"
    attempts += [ConnectionError("cut")] * 9
    with pytest.raises(ConnectionError):
        retries.patiently(attempt, action="the upload")
    assert len(attempts) == 5
    stop = threading.Event()
    stop.set()
    with pytest.raises(ConnectionError):
        retries.patiently(attempt, action="the upload", stop=stop)
    assert len(attempts) == 4
    attempts[:] = [InputError("no such folder")]
    with pytest.raises(InputError):
        retries.patiently(attempt, action="the upload")
    assert not attempts
