"""Every command that reads a model takes its revision, subfolder, cache and token."""

import pytest

from flax_distil.cli.main import main
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build, flatten, replace
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.setup.models import check_models
from flax_distil.evaluation.config import EvalConfig

DATA = ["--dataset_name=./nowhere"]
TRAINING = ["--train_dataset_name=./nowhere"]
COMMANDS = {
    "export": ("--model", []),
    "init-student": ("--teacher", []),
    "pseudo-label": ("--model", DATA),
    "eval": ("--model", DATA),
    "transcribe": ("--model", ["./nowhere.wav"]),
    "data inspect": ("--model", TRAINING),
    "align-heads": ("--teacher", ["--model=./nowhere", *DATA]),
    "distil": ("--model", TRAINING),
    "plan": ("--model", []),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_checkpoint_may_be_in_a_subfolder(command, teacher, tmp_path, capsys):
    model, flags = COMMANDS[command]
    flags = [f"{model}={teacher.parent}", *flags]
    if command != "plan":
        flags.append(f"--output_dir={tmp_path / 'out'}")
    source = ["--cache_dir=cache", "--model_revision=v1", "--token=hf_secret"]
    below = "teacher_subfolder" if command == "align-heads" else "subfolder"
    assert main([*command.split(), *flags, *source, f"--{below}=nothing"]) == 2
    error = capsys.readouterr().err
    assert f"checkpoint {str(teacher.parent)!r} has no subfolder 'nothing'" in error
    assert "hf_secret" not in error


def test_a_teacher_has_a_subfolder_of_its_own(teacher):
    models = {"model_name_or_path": str(teacher), "teacher_model_name_or_path": str(teacher.parent)}
    config = build(
        DistillConfig, train_dataset_name="d", output_dir="o", teacher_subfolder=teacher.name, **models
    )
    assert check_models(config)[0].files.origin == str(teacher)
    with pytest.raises(InputError, match="has no subfolder 'nothing'"):
        check_models(replace(config, teacher_subfolder="nothing"))


def test_models_that_are_joined_have_revisions_of_their_own(capsys):
    config = build(
        EvalConfig, model_name_or_path="a+b", dataset_name="d", model_revision="v1+", subfolder="best"
    )
    sources = [config.model_source(name) for name in ("a", "b")]
    assert [(source.revision, source.subfolder) for source in sources] == [("v1", "best"), (None, "best")]
    assert main(["eval", "--model=a+b", *DATA, "--model_revision=1+2+3"]) == 2
    assert "model_revision '1+2+3' has 3 values for 2 models" in capsys.readouterr().err


@pytest.mark.parametrize("config_class", [EvalConfig, DistillConfig])
def test_tokens_are_neither_shown_nor_kept(config_class):
    needed = {"train_dataset_name": "d"} if config_class is DistillConfig else {"dataset_name": "d"}
    tokens = {"token": "hf_secret"} | ({"hub_token": "hf_secret"} if config_class is DistillConfig else {})
    config = build(config_class, {"model_name_or_path": "m", "output_dir": "o", **needed, **tokens})
    assert "hf_secret" not in repr(config)
    settings = flatten(config)
    assert settings["model_name_or_path"] == "m"
    assert "hf_secret" not in settings.values()
