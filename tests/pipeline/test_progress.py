"""What is shown while recordings are transcribed."""

import io
import sys

import numpy as np
import pytest

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.console import quiet
from flax_distil.core.errors import InputError
from flax_distil.pipeline.recording import LoadedAudio, TranscriptionOutcome
from flax_distil.pipeline.writers.progress import TranscribeProgress
from flax_distil.transcription.results import TranscribedSegment, Transcript

RECORDINGS = [
    LoadedAudio(name, np.zeros(10 * SAMPLING_RATE, np.float32), None) for name in ("a.wav", "b.wav")
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def segment(start, end, text):
    return TranscribedSegment(
        start=start, end=end, text=text, tokens=(1,), avg_logprob=-0.5, no_speech_prob=0.1, temperature=0.0
    )


def work(*, files=2, verbose=True, segments=True):
    """Transcribe one recording and fail at the other."""
    found = (segment(0.0, 2.4, " Hello."), segment(2.4, None, " ")) if segments else ()
    transcript = Transcript(
        text="Hello.", text_with_timestamps=None, tokens=[], token_logprobs=[], avg_logprob=-0.5,
        no_speech_prob=0.1, language="en", segments=found,
    )  # fmt: skip
    with TranscribeProgress(files, verbose=verbose) as progress:
        assert list(progress.count([None, *RECORDINGS])) == [None, *RECORDINGS]
        for one in found:
            progress.show_segment("a.wav", one)
        progress.finish(TranscriptionOutcome(name="a.wav", seconds=10.0, transcript=transcript))
        progress.finish(TranscriptionOutcome(name="b.wav", seconds=0.0, error=InputError("it is damaged")))


def test_segments_are_shown_as_openai_shows_them(capsys):
    work(files=1)
    assert capsys.readouterr().out == "[00:00.000 --> 00:02.400]  Hello.\n"
    work(files=2)
    assert capsys.readouterr().out == "a.wav: [00:00.000 --> 00:02.400]  Hello.\n"
    work(files=1, segments=False)
    assert capsys.readouterr().out == "Hello.\n"


@pytest.mark.parametrize("silent", [False, True])
def test_without_segments_there_is_the_bar_alone_and_quiet_leaves_nothing(silent, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with quiet(silent):
        work(verbose=silent)
    assert capsys.readouterr().out == ""
    if silent:
        assert terminal.getvalue() == ""
    else:
        last = terminal.getvalue().rstrip().rpartition("\r")[2]
        assert "10/20 s of audio" in last
        assert "2/2 files" in last
