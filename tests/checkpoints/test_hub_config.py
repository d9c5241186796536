"""Every command that uploads asks the Hub before it works."""

import pytest

from flax_distil.cli.main import main
from flax_distil.core.nested import build
from flax_distil.exporting.config import ExportConfig
from tests.checkpoints.hub_server import TOKEN

COMMANDS = {
    "export": [],
    "distil": ["--train_dataset_name=./nowhere"],
    "pseudo-label": ["--dataset_name=./nowhere"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_uploads_makes_its_repository_before_it_reads_a_model(command, hub, tmp_path, capsys):
    flags = ["--model=./nowhere", f"--output_dir={tmp_path / 'mine'}", "--push_to_hub", *COMMANDS[command]]
    assert main([command, *flags, "--hub_token=hf_wrong"]) == 2
    error = capsys.readouterr().err
    assert "refuses uploads" in error
    assert "hf_wrong" not in error
    assert main([command, *flags, f"--hub_token={TOKEN}"]) == 2
    assert "there is no folder ./nowhere" in capsys.readouterr().err
    assert hub.branches.keys() == {f"{'datasets/' * (command == 'pseudo-label')}someone/mine"}
    assert main([command, *flags, "--hub_model_id=a/b/c"]) == 2
    assert "'a/b/c' is not a repository" in capsys.readouterr().err


def test_a_token_is_not_shown_with_the_settings():
    config = build(ExportConfig, model_name_or_path="m", output_dir="o", hub_token="hf_secret")
    assert "hf_secret" not in repr(config)
