"""What run.json holds, and what a resumed run may have changed."""

import json

import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.nested import build, flatten
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.monitoring.run_record import RunDescription, RunRecord, step_to_resume

CONFIG = {"train_dataset_name": "here/labels", "teacher_model_name_or_path": "large-v2", "output_dir": "out"}
KNOWN = {"teacher_weights": "commit 1", "model_weights": None, "training_data": "ab"}


def describe(identities=(), **changes):
    settings = flatten(build(DistillConfig, {**CONFIG, "max_steps": 1000, **changes}))
    return RunDescription(given={}, settings=settings, identities=KNOWN | dict(identities))


def compare(folder, now, *, step=400, allow_changes=False):
    before = describe()
    (folder / "run.json").write_text(
        json.dumps({"settings": before.settings, "identities": before.identities, "attempts": []})
    )
    RunRecord(folder, now).compare(step=step, allow_changes=allow_changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 3e-4}, "learning_rate was 0.0001 and is 0.0003"),
        ({"kl_weight": 0.5, "seed": 1}, "kl_weight was None and is 0.5"),
        ({"precision": "full"}, "precision was 'half_mixed' and is 'full'"),
        ({"wer_threshold": 10.0}, "wer_threshold was None and is 10.0"),
        ({"max_steps": 2000}, "max_steps was 1000 and is 2000, and with it the learning rates"),
        ({"teacher_model_name_or_path": "base", "identities": {"teacher_weights": "commit 2"}}, "is 'base'"),
        ({"identities": {"teacher_weights": "x"}}, "_path has other contents than before"),
        ({"train_dataset_name": "there", "identities": {"training_data": "cd"}}, "train_dataset_name was"),
    ],
)  # fmt: skip
def test_what_changes_a_run_is_listed_and_needs_a_flag(changes, named, tmp_path, caplog):
    now = describe(**changes)
    with pytest.raises(InputError, match="set allow_changed_settings") as refused:
        compare(tmp_path, now)
    assert named in str(refused.value)
    caplog.set_level("INFO", "flax_distil")
    compare(tmp_path, now, allow_changes=True)
    assert named in caplog.text


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"logging_steps": 1, "save_steps": 7, "save_total_limit": None}, 400),
        ({"mesh": "data=2,fsdp=2", "num_processes": 2, "dataloader_num_workers": 3}, 400),
        ({"eval_dataset_name": "more", "eval_steps": 5, "push_to_hub": True, "output_dir": "moved"}, 400),
        ({"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}, 400),
        ({"teacher_model_name_or_path": "/moved/here"}, 400),  # the same weights
        ({"max_steps": 600}, 600),  # nothing is left to train
    ],
)  # fmt: skip
def test_what_does_not_change_a_run_is_only_logged(changes, step, tmp_path, caplog):
    caplog.set_level("INFO", "flax_distil")
    compare(tmp_path, describe(**changes), step=step)
    for name in changes:
        assert f"{name} was" in caplog.text


def test_the_end_of_a_constant_schedule_may_move(tmp_path):
    before = describe(lr_scheduler_type="constant")
    (tmp_path / "run.json").write_text(json.dumps({"settings": before.settings, "identities": KNOWN}))
    after = describe(lr_scheduler_type="constant", max_steps=2000)
    RunRecord(tmp_path, after).compare(step=400, allow_changes=False)


def test_a_loss_schedule_ends_with_the_run(tmp_path):
    settings = {"lr_scheduler_type": "constant", "kl_weight_schedule": "linear:0"}
    before = describe(**settings)
    (tmp_path / "run.json").write_text(json.dumps({"settings": before.settings, "identities": KNOWN}))
    with pytest.raises(InputError, match=r"max_steps was .* and with it kl_weight, since its schedule ends"):
        RunRecord(tmp_path, describe(max_steps=2000, **settings)).compare(step=400, allow_changes=False)


def test_the_step_to_resume_is_that_of_the_newest_whole_checkpoint(tmp_path):
    assert step_to_resume(tmp_path / "checkpoints", "auto") is None
    for name in (
        "checkpoint_8",
        "checkpoint_10",
        "checkpoint_12.orbax-checkpoint-tmp",
        "damaged_checkpoint_14",
    ):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert step_to_resume(tmp_path / "checkpoints", "auto") == 10
    assert step_to_resume(tmp_path / "checkpoints", "8") == 8
    assert step_to_resume(tmp_path / "checkpoints", None) is None
