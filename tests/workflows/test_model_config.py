"""Every command that reads a model takes its revision, subfolder, cache and token."""

import pytest

from flax_distil.cli.main import main
from flax_distil.workflows.distil_config import DistilConfig
from flax_distil.workflows.eval_config import EvalConfig
from flax_distil.workflows.model_config import shown_settings

DATA = ["--dataset_name=./nowhere"]
TRAINING = ["--train_dataset_name=./nowhere"]
COMMANDS = {
    "export": ("--model", []),
    "init-student": ("--teacher", []),
    "pseudo-label": ("--model", DATA),
    "eval": ("--model", DATA),
    "transcribe": ("--model", ["./nowhere.wav"]),
    "data inspect": ("--model", TRAINING),
    "align-heads": ("--model", DATA),
    "distil": ("--model", TRAINING),
    "plan": ("--model", []),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_checkpoint_may_be_in_a_subfolder(command, teacher, tmp_path, capsys):
    model, flags = COMMANDS[command]
    flags = [f"{model}={teacher.parent}", *flags]
    if command != "plan":
        flags.append(f"--output_dir={tmp_path / 'out'}")
    if command == "align-heads":
        flags.append(f"--teacher={teacher}")
    source = ["--cache_dir=cache", "--model_revision=v1", "--token=hf_secret"]
    assert main([*command.split(), *flags, *source, "--subfolder=nothing"]) == 2
    error = capsys.readouterr().err
    assert f"checkpoint {str(teacher.parent)!r} has no subfolder 'nothing'" in error
    assert "hf_secret" not in error


def test_a_teacher_has_a_subfolder_of_its_own(teacher, tmp_path, capsys):
    flags = [
        f"--model={teacher}",
        f"--teacher={teacher.parent}",
        *TRAINING,
        f"--output_dir={tmp_path / 'out'}",
    ]
    assert main(["distil", *flags, "--teacher_subfolder=nothing"]) == 2
    assert "has no subfolder 'nothing'" in capsys.readouterr().err
    assert main(["distil", *flags, f"--teacher_subfolder={teacher.name}"]) == 2
    assert "'./nowhere' does not exist" in capsys.readouterr().err


def test_models_that_are_joined_have_revisions_of_their_own(capsys):
    config = EvalConfig(model_name_or_path="a+b", dataset_name="d", model_revision="v1+", subfolder="best")
    sources = [config.model_source(name) for name in ("a", "b")]
    assert [(source.revision, source.subfolder) for source in sources] == [("v1", "best"), (None, "best")]
    assert main(["eval", "--model=a+b", *DATA, "--model_revision=1+2+3"]) == 2
    assert "model_revision '1+2+3' has 3 values for 2 models" in capsys.readouterr().err


@pytest.mark.parametrize("config_class", [EvalConfig, DistilConfig])
def test_tokens_are_neither_shown_nor_kept(config_class):
    needed = {"train_dataset_name": "d"} if config_class is DistilConfig else {"dataset_name": "d"}
    tokens = {"token": "hf_secret"} | ({"hub_token": "hf_secret"} if config_class is DistilConfig else {})
    config = config_class(model_name_or_path="m", output_dir="o", **needed, **tokens)
    assert "hf_secret" not in repr(config)
    settings = shown_settings(config)
    assert settings["model_name_or_path"] == "m"
    assert "hf_secret" not in settings.values()
