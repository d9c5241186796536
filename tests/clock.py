"""A clock that moves only when a test moves it, so that seconds can be compared exactly."""

import time
from typing import Any


class Clock:
    """Stands in for the module ``time`` in the module under test.

    Attributes:
        seconds: What every function of the clock tells; a test may set it.
        looks: How often somebody looked.
    """

    def __init__(self, seconds: float = 0.0):
        self.seconds, self.looks = seconds, 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.seconds

    perf_counter = time = monotonic

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)  # such as strftime, which tell no time themselves

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def wait_for_looks(self, count: int) -> None:
        """Wait until another thread has looked so many times more."""
        wanted, end = self.looks + count, time.monotonic() + 60
        while self.looks < wanted:
            assert time.monotonic() < end
            time.sleep(0.001)
