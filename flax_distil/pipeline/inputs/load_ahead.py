"""Recordings that are read in threads while others are transcribed, up to a number of seconds ahead."""

import collections
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.errors import InputError
from flax_distil.pipeline.config import MEAN_OF_CHANNELS, RETRY_SECONDS, ChannelChoice
from flax_distil.pipeline.inputs.read_audio import read_channels
from flax_distil.pipeline.recording import LoadedAudio

MAX_RECORDINGS_AHEAD = 8
"""Maximum number of recordings that are read ahead."""

MAX_SECONDS_AHEAD = 1800.0
"""Maximum length of the recordings that are read ahead (115 MB of samples), unless a single one is longer."""

MAX_WAIT_SECONDS = 0.2
"""After this long without a new recording, those that are there are transcribed without it."""


def read_recording(
    name: Any,
    given: Any,
    *,
    retry_seconds: float = RETRY_SECONDS,
    channels: ChannelChoice = MEAN_OF_CHANNELS,
) -> LoadedAudio:
    """Read a recording, or say why it cannot be read; see ``read_audio``."""
    try:
        samples_CW = read_channels(given, channels, retry_seconds=retry_seconds)
    except InputError as error:
        return LoadedAudio(name, np.zeros(0, np.float32), error)
    samples = np.ascontiguousarray(samples_CW).reshape(-1)
    return LoadedAudio(name, samples, None, len(samples_CW) if channels.split_channels else 0)


def read_ahead(
    recordings: Iterable[tuple[Any, Any]],
    *,
    retry_seconds: float = RETRY_SECONDS,
    channels: ChannelChoice = MEAN_OF_CHANNELS,
) -> Iterator[LoadedAudio | None]:
    """Read named recordings in threads, in order, some of them before they are asked for.

    The iterable is asked for recordings in a thread of its own, so it may wait for an answer to those that it
    gave. If the next one does not come in time, None is yielded.

    Args:
        recordings: Names of any kind, and what ``read_audio`` takes. They are taken only as they are read.
        retry_seconds: How long a server that does not answer is asked again.
        channels: Which channels are read.
    """
    reader = _Reader(recordings, retry_seconds, channels)
    try:
        while not reader.ended:
            yield reader.next(MAX_WAIT_SECONDS)
    finally:
        reader.stop()


class _Reader:
    """The recordings that were read and not taken yet, and the threads that read."""

    def __init__(self, recordings: Iterable[tuple[Any, Any]], retry_seconds: float, channels: ChannelChoice):
        self._recordings, self._retry_seconds, self._channels = recordings, retry_seconds, channels
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode")
        self._changed = threading.Condition()
        self._waiting: collections.deque[Future[LoadedAudio]] = collections.deque()
        self._last_seconds = MAX_SECONDS_AHEAD  # of the recording read last: the next one may be as long
        self._failure: BaseException | None = None
        self._exhausted = self._stopped = False
        # A daemon, since nobody can wake an iterable that never gives its next recording.
        threading.Thread(target=self._take, name="recordings", daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether all recordings were given out; waits for nothing.

        Raises:
            BaseException: What the iterable raised, when all that came before was given out.
        """
        with self._changed:
            if not self._exhausted or self._waiting:
                return False
        if self._failure is not None:
            raise self._failure
        return True

    def next(self, max_wait: float) -> LoadedAudio | None:
        """Return the next recording; None if it is not there in time, or there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._exhausted, max_wait)
            if not self._waiting:
                return None
            future = self._waiting[0]
        if not wait([future], max_wait).done:
            return None
        recording = future.result()
        with self._changed:
            self._waiting.popleft()
            self._changed.notify_all()
        return recording

    def stop(self) -> None:
        """Read no more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> None:
        try:
            for name, given in self._recordings:
                with self._changed:
                    if self._stopped:
                        return
                    self._waiting.append(self._pool.submit(self._read, name, given))
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._stopped or self._has_room())
        except BaseException as error:  # it is raised where recordings are asked for
            self._failure = error
        finally:
            with self._changed:
                self._exhausted = True
                self._changed.notify_all()

    def _read(self, name: Any, given: Any) -> LoadedAudio:
        recording = read_recording(name, given, retry_seconds=self._retry_seconds, channels=self._channels)
        with self._changed:
            self._last_seconds = len(recording.samples) / SAMPLING_RATE
            self._changed.notify_all()
        return recording

    def _has_room(self) -> bool:
        """Return whether another recording may be read; one in progress counts as long as the last."""
        if not self._waiting:
            return True
        seconds = sum(
            len(future.result().samples) / SAMPLING_RATE
            if future.done() and future.exception() is None
            else self._last_seconds
            for future in self._waiting
        )
        return len(self._waiting) < MAX_RECORDINGS_AHEAD and seconds + self._last_seconds <= MAX_SECONDS_AHEAD
