"""Evaluation sets have settings of their own; what is not given is that of the training data."""

import json

import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.evaluation.config import EvaluationConfig
from flax_distil.distillation.evaluation.data import EvaluationSet, evaluation_sets
from flax_distil.text.tokenizer import WhisperTokenizer


@pytest.fixture(scope="module")
def tokenizer(base_dir) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(base_dir)


@pytest.fixture(scope="module")
def manifests(prompts_dir, tmp_path_factory) -> dict[str, str]:
    """One recording in three lists, each with other names for its columns."""
    folder = tmp_path_factory.mktemp("manifests")
    audio = str(next((prompts_dir / "validation").glob("*.ogg")))
    columns = {"clean": ("audio", "text"), "calls": ("recording", "words"), "labelled": ("audio", "label")}
    for name, (recording, text) in columns.items():
        (folder / f"{name}.jsonl").write_text(json.dumps({recording: audio, text: "Good day"}) + "\n")
    return {name: str(folder / f"{name}.jsonl") for name in columns}


def references(chosen: EvaluationSet) -> list[str | None]:
    source = chosen.source
    return (source.first_rows() if isinstance(source, IterableSpeechDataset) else source).references()


def opened(tokenizer, *sets: str, train: str = "a", **settings):
    config = build(
        DistillConfig,
        model_name_or_path="student",
        train_dataset_name=train,
        eval_dataset_name="+".join(sets),
        output_dir="out",
        **settings,
    )
    return evaluation_sets(config, tokenizer)


def test_columns_languages_and_tasks_are_the_evaluations_own(tokenizer, manifests):
    clean, calls = opened(
        tokenizer, manifests["clean"], manifests["calls"],
        train="a+b+c", text_column_name="x+y+z", language="fr+de+nl",
        eval_audio_column_name="audio+recording", eval_text_column_name="text+words",
        eval_language="en+fr", eval_task="transcribe+translate",
    )  # fmt: skip
    assert [references(clean), references(calls)] == [["Good day"]] * 2
    assert (clean.language, clean.task, calls.language, calls.task) == ("en", "transcribe", "fr", "translate")
    # Translations are English, whatever was spoken.
    assert calls.normalize("It's fine") == clean.normalize("It's fine") == "it is fine"


@pytest.mark.parametrize("streaming", [False, True])
def test_references_are_in_text_where_the_training_data_have_none(tokenizer, manifests, streaming):
    (found,) = opened(
        tokenizer, manifests["clean"], text_column_name=None, language="en", eval_streaming=streaming
    )
    assert references(found) == ["Good day"]


def test_what_is_not_given_is_that_of_the_training_data(tokenizer, manifests):
    both = [manifests["labelled"], manifests["labelled"]]
    for language in ("fr", "fr+de"):
        found = opened(tokenizer, *both, train="a+b", text_column_name="label", language=language)
        assert [part.language for part in found] == ["fr", language[-2:]]
        assert [part.name for part in found] == ["labelled", "labelled-2"]
        assert [references(part) for part in found] == [["Good day"]] * 2


def test_evaluations_search_as_they_are_told():
    config = build(EvaluationConfig, generation_num_beams=3, return_timestamps=True, generation_max_length=9)
    options = config.evaluation_options("en", "translate")
    assert (options.search.num_beams, options.return_timestamps, options.max_new_tokens) == (3, True, 9)
    assert (options.language, options.task) == ("en", "translate")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"language": "fr+de"}, "language 'fr\\+de' of the training data has 2 values for 3 evaluation sets"),
        ({"text_column_name": "x+y", "language": "en"}, "give eval_text_column_name"),
        ({"eval_language": "fr+de"}, "2 languages .* for 3 data sets"),
    ],
)
def test_values_that_cannot_be_paired_are_refused(tokenizer, manifests, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        opened(tokenizer, *[manifests["clean"]] * 3, train="a+b", **settings)
