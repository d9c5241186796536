"""A model that hears less than 30 s at once transcribes in windows of its own, in every mode."""

import dataclasses

import numpy as np
import pytest

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.long_mel import LongMel
from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.student import init_student
from flax_distil.core.errors import InputError
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.normalizers import get_normalizer
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.chunked.chunk_lengths import chunk_samples
from flax_distil.transcription.logits_processors import logits_processors_for
from flax_distil.transcription.modes import make_transcriber
from flax_distil.transcription.options import TranscriptionOptions
from tests.long_recording import long_recording
from tests.transcription.models import Model

POSITIONS = 500  # 10 s


def test_no_timestamp_behind_the_window_is_emitted(tiny_en_dir):
    special = WhisperTokenizer.from_pretrained(tiny_en_dir).special
    settings = GenerationSettings.from_folder(tiny_en_dir, special)
    processors = logits_processors_for(TranscriptionOptions(), settings, special, positions=POSITIONS)
    last = special.timestamp_begin + POSITIONS  # <|10.00|>
    suppressed = set(processors.suppress_tokens) - set(settings.suppress_tokens)
    assert suppressed == set(range(last + 1, special.timestamp_end))
    whole = logits_processors_for(TranscriptionOptions(), settings, special, positions=1500)
    assert set(whole.suppress_tokens) == set(settings.suppress_tokens)


def test_features_of_a_window_are_as_long_as_it():
    mel = LongMel(np.linspace(-4.0, 0.0, 1200 * 8, dtype=np.float32).reshape(1200, 8), 0.0)
    window = mel.window(900, 300, length=1000)
    assert window.shape == (1000, 8)
    np.testing.assert_array_equal(window[:300], mel.window(900, 300)[:300])
    assert not window[300:].any()


def test_a_chunk_is_at_most_a_window():
    assert chunk_samples(None, None, longest=12.0) == (192_000, 32_000, 32_000)
    with pytest.raises(InputError, match="chunk_length_s 15 is not above 0 and at most 12"):
        chunk_samples(15.0, None, longest=12.0)


@pytest.fixture(scope="module")
def short(tiny_en_dir) -> Model:
    """tiny.en with the first third of its positions: untrained, it still understands."""
    student = init_student(load_checkpoint(tiny_en_dir), max_source_positions=POSITIONS)
    return Model(tiny_en_dir, student.config, student.params)


def run(model: Model, mode: str, samples_W: np.ndarray, merging: str = "timestamps", **options):
    generator = model.transcriber(max_new_tokens=80, **options).generator
    found = make_transcriber(mode, generator, batch_size=1, chunk_merging=merging)
    ((_, transcript),) = found.transcribe_recordings([("recording", samples_W)])
    return transcript


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "merging"),
    [("sequential", "timestamps"), ("chunked", "timestamps"), ("chunked", "longest_common_sequence")],
)
def test_a_long_recording_is_understood_in_short_windows(short, mode, merging):
    samples_W, said = long_recording(40)
    transcript = run(short, mode, samples_W, merging, return_timestamps=True, word_timestamps=True)
    spoken, heard = (set(get_normalizer("en")(text).split()) for text in (said, transcript.text))
    assert len(spoken & heard) > 0.6 * len(spoken)
    assert max(segment.end or 0.0 for segment in transcript.segments) <= len(samples_W) / SAMPLING_RATE
    words = [word for segment in transcript.segments for word in segment.words or ()]
    assert all(0 <= word.start <= word.end for word in words)


@pytest.mark.slow
def test_a_recording_longer_than_the_window_is_refused_in_mode_short(short, speech):
    said = run(short, "short", speech[0][: 10 * SAMPLING_RATE])
    assert said.text
    with pytest.raises(InputError, match="is longer than 10 s"):
        run(short, "short", speech[0][: 11 * SAMPLING_RATE])


@pytest.mark.slow
def test_an_assistant_of_another_window_is_refused(short, tiny_en_dir):
    from flax_distil.model.compute_options import ComputeOptions
    from flax_distil.transcription.assisted_generator import Assistant, AssistedGenerator

    tokenizer = WhisperTokenizer.from_pretrained(tiny_en_dir)
    settings = GenerationSettings.from_folder(tiny_en_dir, tokenizer.special)
    whole = dataclasses.replace(short.config, max_source_positions=1500)
    with pytest.raises(InputError, match="assistant hears 10 s at a time and the model 30 s"):
        AssistedGenerator(
            whole, {}, tokenizer, settings, options=TranscriptionOptions(), compute=ComputeOptions(),
            assistant=Assistant(config=short.config, params={}, tokenizer=tokenizer),
        )  # fmt: skip
