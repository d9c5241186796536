"""Long recordings in chunks: what transformers makes of the same chunks, whatever else is in the batches."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.pipelines.automatic_speech_recognition import chunk_iter

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.core.errors import InputError
from flax_distil.transcription.chunked.chunk_lengths import chunk_samples
from flax_distil.transcription.chunked.chunking import cut_chunks
from flax_distil.transcription.chunked.common_sequence import CommonSequenceTranscriber
from flax_distil.transcription.modes import make_transcriber
from flax_distil.transcription.results import Transcript
from tests.long_recording import long_recording
from tests.transcription.models import Model

pytestmark = pytest.mark.integration


class Lengths:
    """Stands for a feature extractor where only the cuts matter."""

    sampling_rate = SAMPLING_RATE

    def __call__(self, chunk: np.ndarray, **_: Any) -> dict[str, Any]:
        return {"samples": chunk}


@pytest.mark.parametrize("lengths", [(30.0, None), (15.0, 2.5), (20.0, (4.0, 0.0)), (25.0, (0.0, 3.0))])
def test_chunks_are_cut_as_in_transformers(lengths):
    chunk, left, right = chunk_samples(*lengths)
    for samples in np.random.default_rng(0).integers(1, 120 * SAMPLING_RATE, 40):
        ours = cut_chunks(int(samples), chunk, left, right)
        theirs = [item["stride"] for item in chunk_iter(np.zeros(samples), Lengths(), chunk, left, right)]
        assert [(c.stop - c.start, c.stride_left, c.stride_right) for c in ours] == theirs


def test_no_chunk_lies_within_the_last_stride():
    """25 s in chunks of 15 s that share 5 s: two, and the second reaches the end."""
    chunks = cut_chunks(25 * SAMPLING_RATE, *chunk_samples(15.0, 2.5))
    assert [(chunk.start / SAMPLING_RATE, chunk.stop / SAMPLING_RATE) for chunk in chunks] == [
        (0, 15),
        (10, 25),
    ]


@pytest.mark.parametrize(
    ("lengths", "named"),
    [((31.0, None), "chunk_length_s 31"), ((0.0, None), "chunk_length_s 0"),
     ((15.0, 8.0), "stride_length_s 8"), ((15.0, (-1.0, 1.0)), "stride_length_s -1")],
)  # fmt: skip
def test_lengths_out_of_range_are_refused(lengths, named):
    with pytest.raises(InputError, match=named):
        chunk_samples(*lengths)


def chunks(
    model: Model, *, batch_size: int = 4, lengths: Any = (15.0, None), **options: Any
) -> CommonSequenceTranscriber:
    return CommonSequenceTranscriber(
        model.transcriber(**{"max_new_tokens": 128} | options).generator,
        batch_size=batch_size, chunk_length_s=lengths[0], stride_length_s=lengths[1],
    )  # fmt: skip


def their_result(
    folder: Path, samples: np.ndarray, lengths: Any, *, timestamps: bool, **options: Any
) -> dict[str, Any]:
    """Return what the Transformers pipeline makes of a recording.

    Its default is five beams. ``force_unique_generate_call``: with timestamps it would otherwise decode each
    chunk again behind its last pair of timestamps, as if the padding were a long recording.
    """
    torch.set_num_threads(2)
    pipeline = transformers.pipeline(
        "automatic-speech-recognition",
        model=transformers.WhisperForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32
        ).eval(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        feature_extractor=transformers.WhisperFeatureExtractor(),
    )
    stride = {} if lengths[1] is None else {"stride_length_s": list(lengths[1])}
    return pipeline(
        samples.copy(), chunk_length_s=lengths[0], **stride, batch_size=8, return_timestamps=timestamps,
        ignore_warning=True,
        generate_kwargs={
            "num_beams": 1, "max_new_tokens": 128, "force_unique_generate_call": True, **options
        },
    )  # fmt: skip


def as_result(transcript: Transcript) -> dict[str, Any]:
    result: dict[str, Any] = {"text": transcript.text}
    if transcript.segments:
        result["chunks"] = [{"timestamp": (s.start, s.end), "text": s.text} for s in transcript.segments]
    return result


@pytest.fixture(scope="module")
def tiny_en(tiny_en_dir) -> Model:
    return Model.open(tiny_en_dir)


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    return long_recording(60.0)[0][: 60 * SAMPLING_RATE]


@pytest.fixture(scope="module")
def beginning(recording) -> np.ndarray:
    return recording[: len(recording) // 2]


@pytest.fixture(scope="module")
def transcribed(tiny_en, beginning, prompts_dir) -> dict[str, Transcript]:
    """A long recording between two short ones, in batches of four chunks."""
    short = decode_audio(prompts_dir / "validation" / "conf-full.ogg")
    named = [("short", short), ("long", beginning), ("half", beginning[: len(beginning) // 2])]
    transcriber = chunks(tiny_en)
    transcriber.warm_up()
    return dict(transcriber.transcribe_recordings(named))


@pytest.mark.slow
def test_text_is_that_of_transformers(tiny_en, tiny_en_dir, recording):
    theirs = their_result(tiny_en_dir, recording, (15.0, None), timestamps=False)
    assert len(theirs["text"].split()) > 60
    [(_, ours)] = chunks(tiny_en).transcribe_recordings([("", recording)])
    assert ours.text == theirs["text"].strip()


def test_recordings_do_not_depend_on_their_neighbors_and_nothing_is_compiled_anew(
    tiny_en, beginning, transcribed, compilations
):
    assert list(transcribed) == ["short", "long", "half"]
    assert transcribed["short"].text == "That conference is full."
    alone: dict[str, Transcript] = {}
    half = beginning[: len(beginning) // 2]
    assert compilations(lambda: alone.update(chunks(tiny_en).transcribe_recordings([("half", half)]))) == []
    assert alone["half"].text == transcribed["half"].text
    np.testing.assert_allclose(alone["half"].token_logprobs, transcribed["half"].token_logprobs, atol=1e-4)


@pytest.mark.slow
def test_chunks_of_digital_silence_have_no_text(tiny_en, transcribed, beginning, compilations):
    half = beginning[: len(beginning) // 2]
    padded = np.concatenate([half, np.zeros(60 * SAMPLING_RATE, np.float32)])
    found: dict[str, Transcript] = {}
    given = [("padded", padded), ("nothing", padded[-SAMPLING_RATE:])]
    transcriber = chunks(tiny_en, no_speech_threshold=1.0)
    assert compilations(lambda: found.update(transcriber.transcribe_recordings(given))) == []
    assert found["padded"].text.startswith(transcribed["half"].text[:20])
    assert len(found["padded"].text.split()) <= len(transcribed["half"].text.split()) + 2
    assert (found["nothing"].text, found["nothing"].tokens) == ("", [])


@pytest.mark.parametrize("mode", ["short", "chunked", "sequential"])
def test_devices_of_several_processes_are_refused(tiny_en, mode):
    generator = tiny_en.transcriber(return_timestamps=True).generator
    generator.partitioner = copy.copy(generator.partitioner)
    generator.partitioner.shard_count = 2
    with pytest.raises(InputError, match="the partitioner spans 2 processes, but each transcribes its own"):
        make_transcriber(mode, generator, batch_size=1)


@pytest.mark.slow
def test_recordings_are_taken_as_there_is_room(tiny_en, prompts_dir):
    short = decode_audio(prompts_dir / "validation" / "conf-full.ogg")
    taken = []

    def source():
        for number in range(20):
            taken.append(number)
            yield number, short

    results = chunks(tiny_en).transcribe_recordings(source())
    assert next(results)[1].text == "That conference is full."
    assert len(taken) == 8  # the batch that is finished, and the one behind it


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(15.0, None), (30.0, None), (20.0, (4.0, 2.0))])
@pytest.mark.parametrize("timestamps", [False, True])
def test_text_and_times_are_those_of_transformers(tiny_en, tiny_en_dir, recording, lengths, timestamps):
    theirs = their_result(tiny_en_dir, recording, lengths, timestamps=timestamps)
    transcriber = chunks(tiny_en, lengths=lengths, return_timestamps=timestamps, batch_size=8)
    [(_, ours)] = transcriber.transcribe_recordings([("", recording)])
    assert as_result(ours) == theirs | {"text": theirs["text"].strip()}


@pytest.mark.slow
@pytest.mark.parametrize("timestamps", [False, True])
def test_five_minutes_by_base_are_what_transformers_makes_of_them(base_dir, timestamps):
    samples, _ = long_recording(300.0)
    theirs = their_result(
        base_dir, samples, (30.0, None), timestamps=timestamps, language="en", task="transcribe"
    )
    model = Model.open(base_dir)
    transcriber = chunks(model, lengths=(30.0, None), return_timestamps=timestamps, batch_size=8)
    [(_, ours)] = transcriber.transcribe_recordings([("", samples)])
    assert ours.language == "en"  # detected once, in the first chunk
    assert ours.language_probabilities is not None
    assert as_result(ours) == theirs | {"text": theirs["text"].strip()}


@pytest.mark.slow
def test_words_of_chunks_follow_each_other_and_spell_the_text(tiny_en, recording):
    transcriber = chunks(tiny_en, return_timestamps=True, word_timestamps=True)
    [(_, found)] = transcriber.transcribe_recordings([("", recording)])
    words = [word for segment in found.segments for word in segment.words]
    assert "".join(word.text for word in words).strip() == found.text
    starts = [word.start for word in words]
    assert starts == sorted(starts)
    assert all(0 <= word.start <= word.end <= len(recording) / SAMPLING_RATE for word in words)
    assert all(0 < word.probability <= 1 for word in words)
    # The same words in chunks of another length are at the same places.
    [(_, other)] = chunks(
        tiny_en, lengths=(30.0, None), return_timestamps=True, word_timestamps=True
    ).transcribe_recordings([("", recording)])
    times = {word.text.strip(" .,?!").lower(): word.start for s in other.segments for word in s.words}
    shared = [word for word in words if (key := word.text.strip(" .,?!").lower()) in times
              and [w.text.strip(" .,?!").lower() for w in words].count(key) == 1]  # fmt: skip
    near = [abs(word.start - times[word.text.strip(" .,?!").lower()]) < 0.5 for word in shared]
    assert len(near) > 20
    assert np.mean(near) > 0.9


@pytest.mark.slow
def test_a_chunk_that_fails_is_tried_again_and_the_likeliest_attempt_is_kept(tiny_en, recording, monkeypatch):
    by = chunks(tiny_en, temperature=(0.0, 1.0), logprob_threshold=-1e-9)
    asked: set[float] = set()
    dispatch = by.generator.dispatch

    def noted(states, requests):
        asked.update(request.temperature for request in requests if request is not None)
        return dispatch(states, requests)

    monkeypatch.setattr(by.generator, "dispatch", noted)
    found = dict(by.transcribe_recordings([("once", recording), ("again", recording)]))
    assert asked == {0.0, 1.0}
    assert found["once"].temperature == 0.0  # a draw is hardly likelier
    assert dataclasses.asdict(found["once"]) == dataclasses.asdict(found["again"])
