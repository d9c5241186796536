"""One setting says how texts are compared, in every command that compares them."""

import json
import shutil

import pytest

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.cli.main import main
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.data.training.training_data import load_training_data
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.evaluation.data import evaluation_sets
from flax_distil.evaluation.config import EvalConfig
from flax_distil.pseudo_labeling.config import PseudoLabelConfig


@pytest.fixture(scope="module")
def tokenizer(base_dir):
    return read_tokenizer(load_checkpoint(str(base_dir), config_only=True).files)[0]


@pytest.fixture
def rows(tmp_path, prompts_dir):
    """Return a function that writes a data set of pairs of reference and pseudo-label."""
    audio = sorted((prompts_dir / "train").glob("*.ogg"))[0]
    shutil.copy(audio, tmp_path / "a.ogg")

    def write(*pairs):
        path = tmp_path / "rows.jsonl"
        lines = [
            json.dumps({"file_name": "a.ogg", "text": reference, "whisper_transcript": label})
            for reference, label in pairs
        ]
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    return write


def config(name, **given):
    return build(
            DistillConfig,
        teacher_model_name_or_path="teacher", model_name_or_path="student", train_dataset_name=name,
        output_dir="out", max_steps=1000, wer_threshold=10.0, **given,
    )  # fmt: skip


def test_a_translation_is_filtered_and_evaluated_by_the_rules_for_english(rows, tokenizer):
    name = rows(("He's paid twenty-one dollars.", "he is paid $21"), ("One cat", "Two dogs"))
    chosen = config(name, language="zh", task="translate", eval_dataset_name=name)
    (source,) = load_training_data(chosen.data, tokenizer).sources
    assert len(source) == 1
    (evaluation,) = evaluation_sets(chosen, tokenizer)
    assert evaluation.normalize.language == "en"


def test_rules_are_those_that_are_asked_for_in_training_and_its_evaluations(rows, tokenizer):
    name = rows(("मैं घर जा रहा", "मो घर जी रही"), ("मैं घर जा रहा", "मैं घर जा रहा"))
    found = {}
    for normalizer in ("whisper", "basic_keep_marks"):
        chosen = config(name, language="hi", eval_dataset_name=name, normalizer=normalizer)
        (source,) = load_training_data(chosen.data, tokenizer).sources
        found[normalizer] = len(source)
        assert evaluation_sets(chosen, tokenizer)[0].normalize.name == normalizer
    assert found == {"whisper": 2, "basic_keep_marks": 1}


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (EvalConfig, {"model_name_or_path": "m", "dataset_name": "d"}),
        (PseudoLabelConfig, {"model_name_or_path": "m", "dataset_name": "d", "output_dir": "o"}),
    ],
)
def test_unknown_rules_are_refused(kind, given):
    with pytest.raises(InputError, match="normalizer 'own' is unknown: expected one of whisper, basic_keep"):
        build(kind, given, normalizer="own")
    chosen = build(kind, given, normalizer="basic_keep_marks")
    assert chosen.data.reading.normalizer == "basic_keep_marks"


def test_unknown_rules_are_refused_on_the_command_line(capsys):
    assert main(["eval", "--model=m", "--dataset_name=d", "--normalizer=own"]) == 2
    assert capsys.readouterr().err.startswith("error: normalizer 'own' is unknown")
