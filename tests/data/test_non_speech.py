"""Clips without speech among the training samples: which rows, which targets, and the same after a resume."""

import dataclasses
import json
from itertools import islice

import numpy as np
import pytest

from flax_distil.audio.non_speech.clips import NonSpeechClip
from flax_distil.audio.non_speech.config import NonSpeechConfig
from flax_distil.audio.non_speech.mixing import NonSpeechMixer
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.data.preprocessing.config import LabelConfig
from flax_distil.data.preprocessing.labels import LabelBuilder
from flax_distil.data.training.config import TrainingDataConfig
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_sources import TableSource, TrainingData

CONFIG = PipelineConfig(batch_size=4, num_threads=2)
HALF = NonSpeechConfig(non_speech_probability=0.5, non_speech_clips=16)


@pytest.fixture
def opened():
    """Makes pipelines and stops their threads at the end."""
    pipelines = []

    def make(data, labels, non_speech, **options) -> TrainingPipeline:
        source = TableSource(data=data, labels=labels)
        pipelines.append(
            TrainingPipeline(TrainingData(sources=[source]), CONFIG, seed=3, non_speech=non_speech, **options)
        )
        return pipelines[-1]

    yield make
    for pipeline in pipelines:
        pipeline.close()


def is_clip(batch, data):
    return batch.index_B >= len(data)


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for name, value in vars(batch).items():
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


def test_some_rows_are_clips_that_have_no_part_in_the_kl_term(speech, labels, opened):
    batches = list(islice(opened(speech, labels, HALF), 6))
    clips = np.concatenate([is_clip(batch, speech) for batch in batches])
    assert 4 < clips.sum() < 20
    for batch in batches:
        np.testing.assert_array_equal(batch.kl_weight_B, ~is_clip(batch, speech))
        assert batch.valid_B.all()
        for row in np.flatnonzero(is_clip(batch, speech)):
            clip = NonSpeechMixer(HALF, seed=3).clip(int(batch.index_B[row]) - len(speech))
            assert batch.ids[row] == clip.name
            heard_W = batch.samples_BW[row, : round(clip.seconds * 16_000)] / 32768
            np.testing.assert_allclose(heard_W, clip.samples(), atol=1 / 32768)
            assert batch.loss_mask_BT[row].sum() == 2


def test_the_other_rows_are_what_they_are_without_clips(speech, labels, opened):
    for batch, other in zip(
        islice(opened(speech, labels, HALF), 4), islice(opened(speech, labels, None), 4), strict=True
    ):
        spoken = ~is_clip(batch, speech)
        np.testing.assert_array_equal(batch.index_B[spoken], other.index_B[spoken])
        np.testing.assert_array_equal(batch.samples_BW[spoken], other.samples_BW[spoken])
        assert other.kl_weight_B is None


def test_a_resumed_run_has_the_same_clips_although_it_has_rejected_no_sample_yet(flawed, labels, opened):
    both = dataclasses.replace(HALF, non_speech_padding_probability=0.5)
    uninterrupted = list(islice(opened(flawed, labels, both), 6))
    first = opened(flawed, labels, both)
    list(islice(first, 3))
    state = json.loads(json.dumps(first.get_state()))
    second = opened(flawed, labels, both)
    second.set_state(state)
    assert_same(islice(second, 3), uninterrupted[3:])


def test_what_is_cached_is_not_made_again(speech, labels, opened):
    asked = []

    def needs_audio(number):
        asked.append(number)
        return number < len(speech)

    batches = list(islice(opened(speech, labels, HALF, needs_audio=needs_audio), 4))
    for batch in batches:
        np.testing.assert_array_equal(batch.has_audio_B, ~is_clip(batch, speech))
    clips = {int(index) for batch in batches for index in batch.index_B[is_clip(batch, speech)]}
    assert clips <= set(asked)


@pytest.mark.parametrize("timed", [False, True])
def test_the_targets_of_a_clip_are_nospeech_and_the_end_behind_the_prompt(multilingual_tokenizer, timed):
    special = multilingual_tokenizer.special
    builder = LabelBuilder(multilingual_tokenizer, LabelConfig(language="de", timestamp_probability=1.0))
    text = "<|0.00|> Guten Tag.<|1.50|>" if timed else "Guten Tag."
    label = builder.build_without_speech([text], random=np.random.default_rng(0))
    mode = special.timestamp_begin if timed else special.no_timestamps
    assert label.decoder_input_ids_T.tolist() == [
        special.sot, special.languages["de"], special.transcribe, mode,
    ]  # fmt: skip
    assert label.labels_T.tolist() == [special.no_speech, special.transcribe, mode, special.eot]
    assert label.loss_mask_T.tolist() == [True, False, False, True]


def test_a_clip_may_follow_the_text_before_its_sample(english_tokenizer):
    special = english_tokenizer.special
    builder = LabelBuilder(english_tokenizer, LabelConfig(condition_on_prev_probability=1.0))
    label = builder.build_without_speech(["Thanks"], previous=("Hello",), random=np.random.default_rng(0))
    start = label.tokens.tolist().index(special.sot)
    assert start == label.given - 1 > 1
    assert label.tokens[0] == special.sot_prev
    assert label.labels_T[start:].tolist() == [special.no_speech, special.eot]
    assert np.flatnonzero(label.loss_mask_T).tolist() == [start, start + 1]


def test_timestamps_move_exactly_with_speech_that_sounds_surround(speech, english_tokenizer, opened):
    special = english_tokenizer.special
    timed = speech.with_columns({"text": [f"<|0.00|> {text}<|0.80|>" for text in speech.references()]})
    builder = LabelBuilder(english_tokenizer, LabelConfig(timestamp_probability=1.0))
    always = NonSpeechConfig(non_speech_padding_probability=1.0)
    moved, plain = opened(timed, builder, always), opened(timed, builder, None)
    offsets = []
    for batch, other in zip(islice(moved, 3), islice(plain, 3), strict=True):
        for row in range(4):
            times = [token for token in batch.labels_BT[row].tolist() if special.is_timestamp(token)]
            steps = times[0] - special.timestamp_begin
            assert times == [special.timestamp_begin + steps, special.timestamp_begin + steps + 40]
            length = round(float(other.duration_B[row]) * 16_000)
            start = steps * 320
            np.testing.assert_array_equal(
                batch.samples_BW[row, start : start + length], other.samples_BW[row, :length]
            )
            assert other.duration_B[row] <= batch.duration_B[row] <= 30.0
            offsets.append(steps)
    assert len(set(offsets)) > 6
    assert max(offsets) > 500  # beyond 10 s


def test_surrounding_sounds_are_fainter_than_the_speech_and_leave_no_room_unused():
    mixer = NonSpeechMixer(NonSpeechConfig(non_speech_padding_probability=1.0), seed=0, window_seconds=15.0)
    speech_W = np.random.default_rng(0).uniform(-0.1, 0.1, 48_000).astype(np.float32)
    for seed in range(20):
        samples_W, offset = mixer.surround(speech_W, np.random.default_rng(seed))
        start = round(offset * 16_000)
        assert start % 320 == 0
        assert len(samples_W) <= 240_000
        np.testing.assert_array_equal(samples_W[start : start + 48_000], speech_W)
        around_W = np.concatenate([samples_W[:start], samples_W[start + 48_000 :]])
        assert np.sqrt(np.mean(around_W**2)) < np.sqrt(np.mean(speech_W**2))
    full_W = np.zeros(240_000, np.float32)
    assert mixer.surround(full_W, np.random.default_rng(0))[1] == 0.0


def test_training_has_other_clips_than_an_evaluation_with_the_same_seed():
    mixer = NonSpeechMixer(HALF, seed=0)
    for number in range(1, 8):
        assert mixer.clip(number).level_dbfs != NonSpeechClip.of(0, number).level_dbfs


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5])
def test_impossible_shares_are_refused(value):
    with pytest.raises(InputError, match="non_speech_probability"):
        build(TrainingDataConfig, train_dataset_name="a", non_speech_probability=value)
