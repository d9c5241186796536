"""Every search says what openai/whisper says with the same options, token by token."""

import dataclasses
import functools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import whisper

from flax_distil.core.arrays import Array
from flax_distil.decoding.options import SearchOptions
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.results import Transcript
from flax_distil.transcription.short_form import ShortFormTranscriber
from tests.openai_whisper import openai_model
from tests.parity.reference import Pair, Recordings, encode

# openai/whisper hands a torch tensor to NumPy's argsort.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")

NEW = 40  # tokens, more than any of the recordings needs
CLOSE = 2e-3  # of average log-probabilities: float32, sums in another order


@dataclasses.dataclass(frozen=True)
class Spoken:
    """Recordings as encoder states of both models."""

    pair: Pair
    texts: list[str]
    ours: Array
    theirs: torch.Tensor

    @classmethod
    def of(cls, pair: Pair, recordings: Recordings) -> "Spoken":
        model = openai_model(pair.folder)
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # it leaves a file open
            whisper.tokenizer.get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
        mels = [whisper.log_mel_spectrogram(torch.from_numpy(row)) for row in recordings.samples_BW]
        with torch.no_grad():
            theirs = torch.stack([model.encoder(mel[None])[0] for mel in mels])
        ours = encode(pair.ours.config, pair.ours.params["encoder"], recordings.samples_BW)
        return cls(pair, recordings.texts, ours, theirs)

    def transcribe(self, rows: slice = slice(None), **options: Any) -> list[Transcript]:
        """Transcribe rows as one batch."""
        pair, given = self.pair, {"max_new_tokens": NEW} | options
        transcriber = ShortFormTranscriber(WhisperGenerator(
            pair.ours.config, pair.ours.params, pair.tokenizer, pair.settings,
            options=TranscriptionOptions(**given), compute=ComputeOptions(),
        ))  # fmt: skip
        states = self.ours[rows]
        return transcriber.collect(
            transcriber.dispatch_encoded({"encoder_out_BSD": states}, rows=len(states))
        )

    def transcribe_as_openai(self, **options: Any) -> list[whisper.DecodingResult]:
        """Transcribe row by row, each with the recording as its only neighbour."""
        model = openai_model(self.pair.folder)
        given = {"fp16": False, "sample_len": NEW, "without_timestamps": True} | options
        if not model.is_multilingual:
            given["language"] = "en"
        return [whisper.decode(model, states, whisper.DecodingOptions(**given)) for states in self.theirs]


@pytest.fixture(scope="module")
def few(tiny_en, held_out) -> Spoken:
    return Spoken.of(tiny_en, held_out.of_all_lengths(8).take([2, 4]))


@pytest.fixture(scope="module")
def of_tiny_en(tiny_en, some_held_out) -> Spoken:
    return Spoken.of(tiny_en, some_held_out)


@pytest.fixture(scope="module")
def of_base(base, held_out) -> Spoken:
    return Spoken.of(base, held_out.of_all_lengths(5))


def beams(**options: Any) -> dict[str, Any]:
    return {"search": SearchOptions(num_beams=5, **options)}


TIMES = {"return_timestamps": True}, {"without_timestamps": False}
PROMPT = "A telephone system, and ITS VOICE MENU."
FIVE = beams(), {"beam_size": 5}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "greedy": ({}, {}),
    "greedy, timestamps": TIMES,
    "beams": FIVE,
    "beams, timestamps": (FIVE[0] | TIMES[0], FIVE[1] | TIMES[1]),
    "beams, cut short": (FIVE[0] | {"max_new_tokens": 5}, FIVE[1] | {"sample_len": 5}),
    "patience and length penalty": (
        TIMES[0] | beams(patience=2.0, length_penalty=0.6),
        TIMES[1] | {"beam_size": 5, "patience": 2.0, "length_penalty": 0.6},
    ),
    "prompt": ({"prompt": PROMPT}, {"prompt": PROMPT}),
    "beams, timestamps and prompt": (
        FIVE[0] | TIMES[0] | {"prompt": PROMPT}, FIVE[1] | TIMES[1] | {"prompt": PROMPT},
    ),
    "prefix": ({"prefix": "You have"}, {"prefix": "You have"}),
    "beams, prompt and prefix": (
        FIVE[0] | {"prompt": PROMPT, "prefix": "Please"}, FIVE[1] | {"prompt": PROMPT, "prefix": "Please"},
    ),
}  # fmt: skip
MULTILINGUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "language detected": ({}, {}),
    "language given, beams": (FIVE[0] | {"language": "de"}, FIVE[1] | {"language": "de"}),
    "translate": ({"task": "translate", "language": "fr"}, {"task": "translate", "language": "fr"}),
    "translate, beams, timestamps": (
        FIVE[0] | TIMES[0] | {"task": "translate", "language": "de"},
        FIVE[1] | TIMES[1] | {"task": "translate", "language": "de"},
    ),
}  # fmt: skip


def assert_identical(spoken: Spoken, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    mine, yours = spoken.transcribe(**ours), spoken.transcribe_as_openai(**theirs)
    if "prefix" in ours:
        yours = [_with_prefix(spoken, result, ours["prefix"]) for result in yours]
    decode = functools.partial(spoken.pair.tokenizer.decode, with_timestamps=True)
    differing = [
        f"{text!r}: {decode(one.tokens)!r} is not {decode(other.tokens)!r} "
        f"(average log-probabilities {one.avg_logprob} and {other.avg_logprob})"
        for text, one, other in zip(spoken.texts, mine, yours, strict=True)
        if one.tokens != other.tokens or one.language != other.language
    ]
    assert not differing, "\n".join(differing)
    assert all(one.tokens for one in mine)
    for one, other in zip(mine, yours, strict=True):
        assert one.text == other.text
        np.testing.assert_allclose(one.avg_logprob, other.avg_logprob, atol=CLOSE)
        np.testing.assert_allclose(one.no_speech_prob, other.no_speech_prob, rtol=0.02, atol=1e-5)


def _with_prefix(spoken: Spoken, result: whisper.DecodingResult, prefix: str) -> whisper.DecodingResult:
    """Put the forced beginning in front of a result of OpenAI's, which leaves it out."""
    given = spoken.pair.tokenizer.encode(f" {prefix}")
    found = len(result.tokens) + 1
    return dataclasses.replace(
        result,
        tokens=[*given, *result.tokens],
        text=spoken.pair.tokenizer.decode([*given, *result.tokens]).strip(),
        avg_logprob=result.avg_logprob * found / (len(given) + found),
    )


@pytest.mark.parametrize("case", ["beams, timestamps and prompt"])
def test_beams_are_those_of_openai(few, case):
    assert_identical(few, *CASES[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_search_of_tiny_en_is_that_of_openai(of_tiny_en, case):
    assert_identical(of_tiny_en, *CASES[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", [*MULTILINGUAL, *CASES])
def test_every_search_of_base_is_that_of_openai(of_base, case):
    ours, theirs = (MULTILINGUAL | CASES)[case]
    language = {} if case in MULTILINGUAL else {"language": "en"}
    assert_identical(of_base, ours | language, theirs | language)


@pytest.mark.slow
def test_probabilities_of_languages_are_those_of_openai(of_base):
    spoken = of_base
    transcripts = spoken.transcribe(max_new_tokens=1)
    _, wanted = whisper.detect_language(openai_model(spoken.pair.folder), spoken.theirs)
    for transcript, probabilities in zip(transcripts, wanted, strict=True):
        assert transcript.language == max(probabilities, key=probabilities.__getitem__)
        found = transcript.language_probabilities
        assert found.keys() == probabilities.keys()
        np.testing.assert_allclose(
            [found[code] for code in probabilities], list(probabilities.values()), atol=1e-3
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("temperature", "search"),
    [
        (0.0, SearchOptions()),
        (0.0, SearchOptions(num_beams=5)),
        (0.8, SearchOptions(best_of=3, top_k=50, top_p=0.9)),
    ],
    ids=["greedy", "beams", "samples"],
)
def test_a_row_does_not_depend_on_its_neighbors_or_the_size_of_the_batch(of_tiny_en, temperature, search):
    options = {"temperature": (temperature,), "search": search, "return_timestamps": True}
    together = [transcript.tokens for transcript in of_tiny_en.transcribe(**options)]
    assert len({*map(tuple, together)}) == len(together)
    backwards = [transcript.tokens for transcript in of_tiny_en.transcribe(slice(None, None, -1), **options)]
    assert backwards[::-1] == together
    for size in (1, 3):
        apart = [
            transcript.tokens
            for start in range(0, len(together), size)
            for transcript in of_tiny_en.transcribe(slice(start, start + size), **options)
        ]
        assert apart == together
