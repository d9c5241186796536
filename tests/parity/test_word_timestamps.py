"""Words are where OpenAI's own code finds them, in the same windows with the same text."""

import dataclasses

import numpy as np
import pytest

from flax_distil.model.compute_options import ComputeOptions
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.results import TranscribedSegment
from flax_distil.transcription.words.word_segments import attach_words
from flax_distil.transcription.words.word_timestamps import AlignmentRequest, WordAligner
from tests.long_recording import long_recording
from tests.openai_whisper import openai_model
from tests.parity.openai_words import AlignedWindow, openai_windows
from tests.parity.reference import Pair

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of OpenAI's tokenizer

ROWS = 4
STEP = 0.02  # seconds, the grid of word times


@dataclasses.dataclass(frozen=True)
class Ours:
    """Our aligner of a checkpoint."""

    aligner: WordAligner
    language: str

    @classmethod
    def of(cls, pair: Pair, language: str) -> "Ours":
        options = TranscriptionOptions(language=language, return_timestamps=True, max_new_tokens=120)
        return cls(
            WordAligner(
                WhisperGenerator(
                    pair.ours.config, pair.ours.params, pair.tokenizer, pair.settings,
                    options=options, compute=ComputeOptions(),
                )
            ),
            language,
        )  # fmt: skip

    def align(self, windows: list[AlignedWindow]):
        """Yield each window with its words; the last batch has idle rows."""
        for start in range(0, len(windows), ROWS):
            part = windows[start : start + ROWS]
            idle = ROWS - len(part)
            mel_BRM = np.stack([window.mel_RM for window in part + part[:1] * idle])
            requests = [
                AlignmentRequest(tokens=window.tokens, language=self.language, frames=window.frames)
                for window in part
            ]
            states = self.aligner.generator.encode_features(mel_BRM)
            yield from zip(part, self.aligner.align(states, [*requests, *[None] * idle]), strict=False)

    def segments(self, window: AlignedWindow) -> list[TranscribedSegment]:
        end = self.aligner.generator.tokenizer.special.eot
        return [
            TranscribedSegment(
                start=segment["start"], end=segment["end"], text=segment["text"],
                tokens=tuple(token for token in segment["tokens"] if token < end),
                avg_logprob=segment["avg_logprob"], no_speech_prob=segment["no_speech_prob"], temperature=0.0,
            )
            for segment in window.segments_before
        ]  # fmt: skip


def assert_words_agree(
    pair: Pair, recordings: list[np.ndarray], monkeypatch, *, language: str = "en"
) -> None:
    ours = Ours.of(pair, language)
    theirs = openai_model(pair.folder, ours.aligner.heads)
    windows = [
        window
        for samples_W in recordings
        for window in openai_windows(theirs, samples_W, monkeypatch, language=language)
    ]
    differences = []
    for window, words in ours.align(windows):
        assert [word.text for word in words] == [timing.word for timing in window.found]
        assert [list(word.tokens) for word in words] == [timing.tokens for timing in window.found]
        np.testing.assert_allclose(
            [word.probability for word in words],
            [timing.probability for timing in window.found],
            atol=2e-3,  # float32, another order of sums
        )
        # In a window of one position OpenAI's path ends before it, at -0.02 s.
        differences += [
            max(abs(word.start - max(timing.start, 0)), abs(word.end - max(timing.end, 0)))
            for word, timing in zip(words, window.found, strict=True)
        ]
        attached, last = attach_words(
            ours.segments(window),
            words,
            last_speech_timestamp=window.last_speech_timestamp,
            offset=window.segments_before[0]["seek"] / 100,
        )
        if max(differences) < STEP / 2:  # what follows is exact
            assert [as_openai(segment) for segment in attached] == [
                {name: segment[name] for name in ("start", "end", "words")}
                | {"words": [{**word, "probability": None} for word in segment["words"]]}
                for segment in window.segments
            ]
            assert last == window.segments[-1]["end"]
    assert len(differences) > 20
    exact = np.mean(np.asarray(differences) < STEP / 2)
    print(f"{pair.folder.name}: {len(differences)} words, {exact:.1%} at the same positions")
    assert np.mean(np.asarray(differences) < 2.5 * STEP) >= 0.95
    assert exact >= 0.99  # equal but for ties within float32


def as_openai(segment: TranscribedSegment) -> dict:
    words = [
        {"word": word.text, "start": word.start, "end": word.end, "probability": None}
        for word in segment.words
    ]
    return {"start": segment.start, "end": segment.end, "words": words}


def test_tiny_en_agrees_on_a_prompt_and_on_several_joined(tiny_en, some_held_out, monkeypatch):
    prompt_W = np.trim_zeros(some_held_out.samples_BW[4], "b")
    assert_words_agree(tiny_en, [prompt_W, long_recording(20)[0]], monkeypatch)


@pytest.mark.slow
def test_tiny_en_agrees_on_five_minutes(tiny_en, monkeypatch):
    assert_words_agree(tiny_en, [long_recording(300)[0]], monkeypatch)


@pytest.mark.slow
def test_base_agrees_on_five_minutes(base, monkeypatch):
    assert_words_agree(base, [long_recording(300)[0]], monkeypatch)


@pytest.mark.slow
def test_base_agrees_where_words_are_single_characters(base, monkeypatch):
    """English speech that the model is told is Japanese: what it writes is Japanese."""
    assert_words_agree(base, [long_recording(40)[0]], monkeypatch, language="ja")
