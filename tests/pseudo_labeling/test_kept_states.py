"""Labelling keeps what its encoder made of the recordings, and distillation encodes none of them again."""

import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.distillation.config import DistillConfig
from flax_distil.pseudo_labeling.config import PseudoLabelConfig
from flax_distil.pseudo_labeling.job import run as run_labeling
from tests.toys import observe, write_prompts

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_partitioner")]


@pytest.fixture(scope="module")
def labelled(teacher, prompts_dir, tmp_path_factory):
    """Seven prompts, joined to up to 5 s where they are shorter, and the outputs of the encoder."""
    folder = tmp_path_factory.mktemp("labelled")
    run_labeling(
        build(
            PseudoLabelConfig,
            model_name_or_path=str(teacher),
            dataset_name=str(write_prompts(folder, prompts_dir)),
            concatenate_audio=True,
            max_concatenated_seconds=5.0,
            generation_max_length=4,
            per_device_eval_batch_size=2,
            encoder_cache_dir=str(folder / "states"),
            output_dir=str(folder / "labels"),
        )
    )
    return folder


def settings(teacher, labelled, folder, **changes):
    values = {
        "teacher_model_name_or_path": str(teacher), "train_dataset_name": str(labelled / "labels"),
        "student_decoder_layers": 1, "per_device_train_batch_size": 2, "max_steps": 2, "precision": "full",
        "logging_steps": 1, "warmup_steps": 0, "cache_encoder_states": True,
        "encoder_cache_dir": str(labelled / "states"), "output_dir": str(folder),
    }  # fmt: skip
    return build(DistillConfig, values | changes)


def test_distillation_on_labels_runs_no_encoder(teacher, labelled, tmp_path):
    run = observe(settings(teacher, labelled, tmp_path / "run"))
    anew = observe(settings(teacher, labelled, tmp_path / "anew", encoder_cache_dir=str(tmp_path / "other")))
    assert run.fns.encode._cache_size() == 0
    assert anew.fns.encode._cache_size() == 1
    # The teacher heard the samples before they were rounded to 16 bits.
    assert run.by_step("loss") == pytest.approx(anew.by_step("loss"), rel=1e-3)
    done = np.fromfile(labelled / "states" / "done.bin", np.uint8)
    assert done.sum() > 1


def test_states_are_written_to_this_machine_only(labelled):
    with pytest.raises(InputError, match="encoder_cache_dir 'gs://bucket/states' is an address"):
        build(
            PseudoLabelConfig,
            model_name_or_path="teacher",
            dataset_name="prompts",
            encoder_cache_dir="gs://bucket/states",
            output_dir=str(labelled / "labels"),
        )
