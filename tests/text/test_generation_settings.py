import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from flax_distil.core.errors import InputError
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.tokenizer import WhisperTokenizer


@pytest.fixture(scope="module")
def base_file(base_dir: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads((base_dir / "generation_config.json").read_text())
    return contents


@pytest.mark.parametrize("name", ["tiny_en", "base"])
def test_settings_of_a_checkpoint_survive_reading_and_writing(request: pytest.FixtureRequest, name: str):
    folder: Path = request.getfixturevalue(f"{name}_dir")
    tokenizer: WhisperTokenizer = request.getfixturevalue(name)
    contents = json.loads((folder / "generation_config.json").read_text())
    contents.pop("transformers_version", None)  # who wrote the file, not a setting
    settings = GenerationSettings.from_folder(folder, tokenizer.special)
    assert settings.to_dict(tokenizer.special) == contents


def test_written_settings_load_in_transformers(special: SpecialTokens, base_dir: Path):
    import transformers

    contents = GenerationSettings.from_folder(base_dir, special).to_dict(special)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = transformers.GenerationConfig.from_dict(contents)
        config.validate()
    assert config.lang_to_id["<|he|>"] == special.languages["he"]
    assert config.begin_suppress_tokens == [220, special.eot]


def test_ctranslate2_names_say_the_same(
    special: SpecialTokens, base_dir: Path, base_file: dict[str, Any], tmp_path: Path
):
    ctranslate2 = {
        "alignment_heads": base_file["alignment_heads"],
        "lang_ids": sorted(base_file["lang_to_id"].values()),
        "suppress_ids": base_file["suppress_tokens"],
        "suppress_ids_begin": base_file["begin_suppress_tokens"],
    }
    (tmp_path / "config.json").write_text(json.dumps(ctranslate2))
    expected = GenerationSettings.from_folder(base_dir, special)
    assert GenerationSettings.from_folder(tmp_path, special) == expected


def test_older_checkpoints_keep_suppressed_tokens_in_the_model_config(special: SpecialTokens, tmp_path: Path):
    old = {"suppress_tokens": [1, 2], "begin_suppress_tokens": [220, 50257], "max_length": 20, "d_model": 384}
    (tmp_path / "config.json").write_text(json.dumps(old))
    settings = GenerationSettings.from_folder(tmp_path, special)
    assert (settings.suppress_tokens, settings.begin_suppress_tokens) == ((1, 2), (220, 50257))
    assert settings.max_length == 448
    assert settings.alignment_heads == ()


def test_the_generation_config_counts_alone_where_it_exists(special: SpecialTokens, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"suppress_tokens": [9]}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"suppress_tokens": None}))
    assert GenerationSettings.from_folder(tmp_path, special).suppress_tokens == ()


def test_a_folder_without_settings_gets_the_defaults(special: SpecialTokens, tmp_path: Path):
    assert GenerationSettings.from_folder(tmp_path, special) == GenerationSettings(is_multilingual=True)


def test_no_limit_on_the_first_timestamp_is_told_from_an_absent_field(special: SpecialTokens):
    unlimited = GenerationSettings.from_dict({"max_initial_timestamp_index": None}, special)
    assert unlimited.max_initial_timestamp_index is None
    assert GenerationSettings.from_dict({}, special).max_initial_timestamp_index == 50


def test_faulty_fields_are_reported_together(special: SpecialTokens):
    faulty = {
        "suppress_tokens": ["x"],
        "begin_suppress_tokens": [-1],
        "alignment_heads": [[1]],
        "max_length": "long",
    }
    with pytest.raises(
        InputError, match=r"suppress_tokens.*begin_suppress_tokens.*max_length.*alignment_heads"
    ):
        GenerationSettings.from_dict(faulty, special)


def test_a_broken_file_is_refused(special: SpecialTokens, tmp_path: Path):
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(InputError, match=r"generation_config.json is not valid JSON"):
        GenerationSettings.from_folder(tmp_path, special)


@pytest.mark.parametrize(
    ("given", "language", "task"),
    [
        ({"language": "french", "task": "transcribe"}, "fr", "transcribe"),
        ({"language": "<|de|>"}, "de", None),
        ({"task": "translate"}, None, "translate"),
        ({"forced_decoder_ids": [[1, 50265], [2, 50358], [3, 50363]]}, "fr", "translate"),
        ({"forced_decoder_ids": [[1, None], [2, 50359]]}, None, "transcribe"),
        # As transformers: the older field counts only where neither of the newer ones is given.
        ({"language": "de", "forced_decoder_ids": [[1, 50265], [2, 50358]]}, "de", None),
        ({}, None, None),
    ],
)
def test_a_checkpoint_may_have_a_language_and_a_task_of_its_own(
    special: SpecialTokens, base_file: dict[str, Any], given: dict[str, Any], language: str, task: str
):
    settings = GenerationSettings.from_dict(base_file | given, special)
    assert (settings.language, settings.task) == (language, task)
    again = GenerationSettings.from_dict(settings.to_dict(special), special)
    assert (again.language, again.task) == (language, task)


def test_defaults_of_an_english_only_checkpoint_do_not_count(tiny_en: WhisperTokenizer):
    settings = GenerationSettings.from_dict({"forced_decoder_ids": [[1, 50362]]}, tiny_en.special)
    assert (settings.language, settings.task) == (None, None)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"language": "klingon"}, "default language of .*unknown language 'klingon'"),
        ({"task": "summarise"}, "task"),
        ({"forced_decoder_ids": [50265]}, "forced_decoder_ids"),
    ],
)
def test_a_default_that_is_none_is_refused(special: SpecialTokens, given: dict[str, Any], complaint: str):
    with pytest.raises(InputError, match=complaint):
        GenerationSettings.from_dict(given, special)
