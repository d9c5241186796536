"""A student that hears less at once than its teacher: made, trained, evaluated, exported and heard again."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from flax_distil.core.nested import build
from flax_distil.distillation.config import DistillConfig
from tests.toys import observe, write_prompts

pytestmark = pytest.mark.slow

POSITIONS = 150  # 3 s; prompts of 1.8 to 5.5 s


@pytest.fixture(scope="module")
def run(teacher, prompts_dir, tmp_path_factory):
    prompts = write_prompts(tmp_path_factory.mktemp("prompts"), prompts_dir)
    folder = tmp_path_factory.mktemp("runs") / "run"
    return observe(
        build(
            DistillConfig,
            teacher_model_name_or_path=str(teacher), max_source_positions=POSITIONS,
            train_dataset_name=str(prompts), eval_dataset_name=str(prompts), max_eval_samples=4,
            student_decoder_layers=1, per_device_train_batch_size=2, per_device_eval_batch_size=2,
            max_steps=3, warmup_steps=0, learning_rate=1e-2, logging_steps=1, generation_max_length=4,
            mse_weight=0.1, dataloader_num_workers=2, mask_time_prob=0.1, output_dir=str(folder),
        )
    )  # fmt: skip


def test_the_exported_student_tells_how_much_it_hears(run, teacher):
    """To transformers too, whose feature extractor pads to what preprocessor_config.json says."""
    assert json.loads((run.folder / "config.json").read_text())["max_source_positions"] == POSITIONS
    preprocessor = json.loads((run.folder / "preprocessor_config.json").read_text())
    assert (preprocessor["chunk_length"], preprocessor["n_samples"], preprocessor["nb_max_frames"]) == (
        3, 48_000, 300,
    )  # fmt: skip
    name = "model.encoder.embed_positions.weight"
    mine, theirs = (load_file(folder / "model.safetensors")[name] for folder in (run.folder, teacher))
    np.testing.assert_array_equal(mine, theirs[:POSITIONS].astype(np.float16))


def test_its_encoder_is_trained_beside_the_teachers_and_the_log_says_so(run, teacher):
    said = "\n".join(run.messages)
    assert "not shared with the teacher (its max_source_positions is 150 and not 1500)" in said
    name = "model.encoder.layers.0.fc1.weight"
    mine, theirs = (load_file(folder / "model.safetensors")[name] for folder in (run.folder, teacher))
    assert np.abs(mine - theirs).max() > 1e-3


def test_recordings_of_more_than_its_window_are_dropped_and_counted(run):
    (report,) = [message for message in run.messages if message.startswith("skipped")]
    assert "s of audio: less than 3 s are taken" in report
    losses = run.by_step("loss")
    assert losses[3] < losses[1]
    (evaluated,) = [line for line in run.lines if "eval_loss" in line]
    assert (evaluated["eval_samples"], evaluated["eval_skipped"]) == (1, 3)
