"""Distillation with clips without speech: no teacher in their loss, cached encoder outputs, the export."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.student import allow_empty_text
from flax_distil.checkpoints.training.trained_student import load_trained_student
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.data.training.batches import Batch
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.forward import StudentAndTeacher
from flax_distil.distillation.job import run
from flax_distil.distillation.loss import HiddenMSE, LossInputs
from flax_distil.model.decoder import ForwardOutput
from tests.toys import TOY, write_prompts

BLANK = 220
"""The token of a space, which published checkpoints do not let a text begin with either."""


@pytest.fixture(scope="module")
def settings(teacher, prompts_dir, tmp_path_factory):
    return {
        "teacher_model_name_or_path": str(teacher), "student_decoder_layers": 1,
        "train_dataset_name": str(write_prompts(tmp_path_factory.mktemp("speech"), prompts_dir)),
        "per_device_train_batch_size": 4, "max_steps": 3, "warmup_steps": 0, "precision": "full",
        "logging_steps": 1, "non_speech_probability": 0.5, "non_speech_clips": 4,
    }  # fmt: skip


def test_hidden_states_of_rows_without_a_kl_term_are_not_compared():
    random = np.random.default_rng(0)
    student, teacher = (jnp.asarray(random.normal(size=(2, 3, 5, 4)), jnp.float32) for _ in range(2))
    mask_BT = random.random((3, 5)) < 0.7

    def mse(**arrays):
        outputs = [
            ForwardOutput(hidden_BTD=layers[-1], embedding_VD=jnp.zeros((7, 4)), layers_LBTD=layers)
            for layers in (student, teacher)
        ]
        batch, count = Batch(**arrays), jnp.float32(10.0)
        return HiddenMSE(1.0)(
            LossInputs(outputs=StudentAndTeacher(*outputs), batch=batch, tokens=count, frames=count)
        )

    spoken = jnp.array([1.0, 0.0, 0.5])
    masked_BT = jnp.asarray(mask_BT & np.array([[True], [False], [True]]))
    assert mse(loss_mask_BT=jnp.asarray(mask_BT), kl_weight_B=spoken) == mse(loss_mask_BT=masked_BT)
    assert mse(loss_mask_BT=jnp.asarray(mask_BT)) > mse(loss_mask_BT=masked_BT)


def test_a_student_that_learned_silence_may_end_before_its_first_word(tiny_en_dir, base_dir):
    for folder in (tiny_en_dir, base_dir):
        published = load_checkpoint(folder, config_only=True)
        assert len(published.files.generation_config["begin_suppress_tokens"]) == 2
        settings = allow_empty_text(published).files.generation_config
        assert settings == published.files.generation_config | {"begin_suppress_tokens": [BLANK]}
        assert allow_empty_text(allow_empty_text(published)).files.generation_config == settings


@pytest.mark.slow
def test_clips_are_encoded_once_and_a_student_may_write_nothing(settings, teacher, one_partitioner, tmp_path):
    config = build(DistillConfig, **settings, cache_encoder_states=True, output_dir=str(tmp_path / "run"))
    run(config)
    exported = json.loads((tmp_path / "run" / "generation_config.json").read_text())
    assert exported["begin_suppress_tokens"] == [BLANK]
    later = load_trained_student(ModelSource(name=str(tmp_path / "run")), "latest")
    assert later.files.generation_config["begin_suppress_tokens"] == [BLANK]
    done = np.fromfile(tmp_path / "run" / "encoder_cache" / "done.bin", np.uint8)
    states = np.fromfile(tmp_path / "run" / "encoder_cache" / "states.bin", np.uint16)
    rows = len(done) - 4
    assert rows == 8
    assert 0 < done[:rows].sum() < rows
    assert done[rows:].any()
    assert len(states) == len(done) * 1500 * TOY.d_model


def test_sounds_around_speech_are_other_audio_than_what_is_kept(settings, tmp_path):
    with pytest.raises(InputError, match="cache_encoder_states does not go with non_speech_padding"):
        run(
            build(
                DistillConfig,
                **settings,
                cache_encoder_states=True,
                non_speech_padding_probability=0.5,
                output_dir=str(tmp_path / "run"),
            )
        )
    assert not (tmp_path / "run").exists()


def test_silence_is_learned_by_the_cross_entropy_alone(settings):
    with pytest.raises(InputError, match="non_speech_probability needs the cross-entropy"):
        build(DistillConfig, **settings, ce_weight=0.0, output_dir="unused")


@pytest.mark.slow
def test_a_real_student_learns_to_be_silent_and_still_hears_speech(tmp_path):
    """The benchmark in small: text on at most a quarter of the clips, words within the interval."""
    from benchmarks import non_speech

    results = non_speech.compare(
        non_speech.parse_arguments(
            f"--output {tmp_path} --steps 60 --train_samples 96 --eval_samples 24 --clips 40".split()
        )
    )
    without, with_clips = (results["models"][name] for name in ("without-clips-free", "with-clips"))
    shares = [entry["non_speech"]["thresholds_off"]["with_text"] for entry in (without, with_clips)]
    assert shares[1] <= shares[0] / 4
    rates = [entry["total"]["clean"] for entry in (without, with_clips)]
    assert rates[1]["wer"] <= rates[0]["wer_interval"][1]
