"""Flags are the fields of the configurations, and what is wrong with them is said in one sentence."""

import importlib
import json
import re

import pytest

from flax_distil.checkpoints.config import InitStudentConfig
from flax_distil.cli.flags import read_flags
from flax_distil.cli.main import COMMANDS, config_class, main
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build, flatten, leaves
from flax_distil.distillation.config import DistillConfig
from flax_distil.evaluation.config import EvalConfig
from flax_distil.pipeline.config import TranscribeConfig

NEEDED = ["--model_name_or_path", "m", "--dataset_name", "d"]


def read(config_class, *arguments):
    return read_flags(config_class, arguments, program="flax-distil test")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_flag_under_a_heading(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    shown = "".join(capsys.readouterr().out.split())  # lines may end within a word that has a hyphen
    for leaf in leaves(config_class(command)):
        assert leaf.text, leaf.name
        assert leaf.text.replace(" ", "") in shown
        assert f"{leaf.section}:".replace(" ", "") in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_overwriting_means_the_same_in_every_command(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    if "--overwrite_output_dir" in shown:
        text = shown.split("--overwrite_output_dir", 1)[1]
        assert re.search(r"Replace the [a-z, ]+ of an earlier run in output_dir; other files stay", text)


def test_switches_stand_alone_or_take_a_value_and_never_swallow_a_file():
    config = read(TranscribeConfig, "--return_timestamps", "a.wav", "b.wav", "--model", "m")
    assert config.decoding.return_timestamps is True
    assert config.files == ["a.wav", "b.wav"]
    config = read(TranscribeConfig, "a.wav", "--model=m", "--return_timestamps", "false")
    assert config.decoding.return_timestamps is False


TRAIN = ["--train_dataset_name=d", "--output_dir=o", "--teacher_model_name_or_path=t"]


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ([], None),
        (["--gradient_checkpointing"], "full"),
        (["--gradient_checkpointing", "--use_scan=false"], "full"),
        (["--gradient_checkpointing", "true"], "full"),
        (["--gradient_checkpointing=True"], "full"),
        (["--gradient_checkpointing", "false"], None),
        (["--gradient_checkpointing", "dots"], "dots"),
    ],
)
def test_the_switch_of_the_original_is_taken_beside_its_values(arguments, value):
    assert read(DistillConfig, *TRAIN, *arguments).compute.gradient_checkpointing == value


@pytest.mark.parametrize(("value", "meant"), [("true", "full"), ("false", None), ("dots", "dots")])
def test_a_file_may_switch_it_too(value, meant, tmp_path):
    path = tmp_path / "flags.yaml"
    path.write_text(f"gradient_checkpointing: {value}\n")
    assert read(DistillConfig, *TRAIN, f"--config={path}").compute.gradient_checkpointing == meant


def test_values_of_a_list_stand_one_after_the_other():
    config = read(
        InitStudentConfig,
        "--decoder_layer_indices",
        "0",
        "3",
        "--teacher_model_name_or_path=t",
        "--output_dir=o",
    )
    assert config.student.student_decoder_layer_indices == [0, 3]


GROUPED = """
loss: {kl_weight: 2, mse_weight: 0.5}
optimizer:
  learning_rate: 3e-4
  lr_scheduler_kwargs: {power: 2}
data: {filters: {wer_threshold: 10}, language: de}
"""


@pytest.mark.parametrize("command", ["distil", "plan"])
def test_a_grouped_file_means_the_same_for_a_run_and_its_plan(command, tmp_path):
    path = tmp_path / "flags.yaml"
    path.write_text(GROUPED)
    config = read(config_class(command), *TRAIN, f"--config={path}")
    given = {
        "kl_weight": 2.0, "mse_weight": 0.5, "learning_rate": 3e-4, "lr_scheduler_kwargs": {"power": 2.0},
        "wer_threshold": 10.0, "language": "de", "train_dataset_name": "d", "output_dir": "o",
        "teacher_model_name_or_path": "t",
    }  # fmt: skip
    assert config == build(config_class(command), given)
    assert flatten(config).items() >= given.items()


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_gives_flags_and_the_command_line_wins(suffix, tmp_path):
    path = tmp_path / f"flags.{suffix}"
    values = {"model_name_or_path": "m", "dataset_name": "d", "max_samples": 3, "return_timestamps": True}
    lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())
    path.write_text(json.dumps(values) if suffix == "json" else lines)
    config = read(EvalConfig, "--config", str(path), "--max_samples", "5")
    assert (config.data.max_samples, config.data.dataset_name) == (5, "d")
    assert config.decoding.return_timestamps


def test_an_unknown_key_in_a_file_is_refused(tmp_path):
    path = tmp_path / "flags.yaml"
    path.write_text("model_name_or_path: m\ndataset_name: d\nmax_sample: 3\n")
    with pytest.raises(InputError, match="'max_sample' is not accepted"):
        read(EvalConfig, f"--config={path}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([*NEEDED, "--max_samples=x"], "--max_samples cannot be 'x': expected a whole number"),
        ([*NEEDED, "--max_samples=0"], "max_samples 0 is below 1"),
        ([*NEEDED, "--max_sample=3"], "unrecognized arguments: --max_sample=3"),
        ([*NEEDED, "--dtype=float8"], "dtype 'float8' is unknown: expected float32, bfloat16, float16 "),
        ([*NEEDED, "--task=summarise"], "task 'summarise' is unknown"),
        ([*NEEDED, "--language=klingon"], "unknown language 'klingon'"),
        (["--dataset_name=d"], "missing --model_name_or_path"),
        (
            [*NEEDED, "--config=/nowhere.yaml"],
            "--config: '/nowhere.yaml' cannot be read: No such file",
        ),
    ],
)
def test_a_wrong_flag_is_one_sentence_and_exit_code_2(arguments, sentence, capsys):
    assert main(["eval", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {sentence}")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_an_interrupt_is_exit_code_130(monkeypatch, capsys):
    from flax_distil.evaluation import job as evaluate

    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "run", interrupted)
    assert main(["eval", *NEEDED]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_whole_number_in_a_file_is_a_float_where_any_number_is_taken(tmp_path):
    path = tmp_path / "flags.yaml"
    config = importlib.import_module("flax_distil.pipeline.align_heads.config").AlignHeadsConfig
    needed = ["--model=m", "--teacher=t", "--dataset_name=d"]
    path.write_text("length_penalty: 1\n")
    read = read_flags(config, [*needed, f"--config={path}"], program="p")
    penalty = read.decoding.search.length_penalty
    assert (type(penalty), penalty) == (float, 1.0)


def test_words_of_thousands_of_characters_are_cut_in_sentences(capsys):
    assert main(["eval", "--model=m", "--dataset_name=d", f"--compression_ratio_threshold={'9' * 5000}"]) == 2
    assert len(capsys.readouterr().err) < 500
