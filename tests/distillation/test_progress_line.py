"""The line of progress: redrawn on a terminal, a plain line of text in a file."""

import io
import logging

import pytest

from flax_distil.distillation.monitoring import progress_line
from flax_distil.distillation.monitoring.progress_line import ProgressLine, duration

FIGURES = {
    "loss": 1.23456, "learning_rate": 1e-4, "samples_per_second": 12.3, "audio_seconds_per_second": 160.0,
    "data_wait_share": 0.012, "mfu": 0.413, "grad_norm": 3.0,
}  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def minutes(monkeypatch):
    """A clock of which each look takes a minute."""
    looks = iter(range(0, 10_000, 60))
    monkeypatch.setattr(progress_line.time, "monotonic", lambda: float(next(looks)))


def test_a_file_gets_a_plain_line_with_every_figure(minutes):
    file = io.StringIO()
    line = ProgressLine(1000, first_step=100, stream=file)
    line.advance(101)
    assert file.getvalue() == ""
    line.show(FIGURES)
    line.close()
    assert file.getvalue() == (
        "step 101/1,000  loss 1.235  lr 0.0001  12.3 samples/s  160 audio-h/h  data wait 1%  MFU 41.3%  "
        "14 h 59 min left\n"
    )


def test_a_terminal_has_one_line_that_makes_room_for_the_log(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "50")
    terminal, handler = Terminal(), logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(handler)
    try:
        line = ProgressLine(10, stream=terminal)
        line.advance(1)
        line.show(FIGURES)
        handler.handle(logging.makeLogRecord({"msg": "a warning"}))
        line.close()
    finally:
        logging.getLogger().removeHandler(handler)
    assert handler.filters == []
    written = terminal.getvalue()
    assert written.count("\n") == 1
    assert written.endswith("\x1b[K\n")
    assert "\r\x1b[K" in written
    drawn = written.split("\r")
    assert all(len(text.removesuffix("\n").removesuffix("\x1b[K")) < 50 for text in drawn)
    assert "loss 1.235" in drawn[-1]
    assert "MFU" not in drawn[-1]


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    line = ProgressLine(10, stream=terminal)
    terminal.close()
    line.advance(1)
    line.show(FIGURES)
    line.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (61.0, "1 min 1 s"),
        (3600.0 * 3 + 60 * 20, "3 h 20 min"),
        (86400.0 * 2 + 3600, "2 d 1 h"),
    ],
)
def test_durations_have_their_two_largest_units(seconds, text):
    assert duration(seconds) == text
