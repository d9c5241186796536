"""What fine-tuning adds behind the timestamps: words are text, languages are languages."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flax_distil.core.errors import InputError
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.timestamps import split_segments, strip_timestamps
from flax_distil.text.tokenizer import WhisperTokenizer
from tests.text.conftest import edited_tokenizer

WORD, HAKKA, OTHER = 51865, 51866, 51867


def added(token: int, content: str, *, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": content, "special": special, **flags}


@pytest.fixture(scope="module")
def folder(base_dir: Path, tmp_path_factory) -> Path:
    """The multilingual vocabulary with a word, a language, and what only looks like one."""
    target = edited_tokenizer(
        base_dir,
        tmp_path_factory.mktemp("added"),
        lambda tokens: [
            *tokens,
            added(WORD, " flaxian", special=False),
            added(HAKKA, "<|hak|>", special=True),
            added(OTHER, "<|spk|>", special=True),
        ],
    )
    settings = json.loads((base_dir / "generation_config.json").read_text())
    settings["lang_to_id"]["<|hak|>"] = HAKKA
    (target / "generation_config.json").write_text(json.dumps(settings | {"language": "<|hak|>"}))
    return target


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> WhisperTokenizer:
    return WhisperTokenizer.from_pretrained(folder)


def test_added_words_are_text_and_no_timestamps(tokenizer: WhisperTokenizer):
    special = tokenizer.special
    assert special.is_text(WORD)
    assert not special.is_timestamp(WORD)
    assert not special.is_special(WORD)
    ids = [special.timestamp_begin, 400, WORD, special.timestamp_begin + 100]
    assert strip_timestamps(ids, special) == [400, WORD]
    (segment,) = split_segments(ids, special)
    assert (segment.start, segment.end, segment.tokens) == (0.0, 2.0, (400, WORD))
    assert tokenizer.decode(ids).endswith(" flaxian")
    assert tokenizer.encode(" flaxian") == [WORD]


def test_a_language_that_was_added_is_prompted_under_its_code(tokenizer: WhisperTokenizer):
    special = tokenizer.special
    assert special.languages["hak"] == HAKKA
    assert special.is_special(HAKKA)
    assert not special.is_text(HAKKA)
    for name in ("hak", "<|hak|>", "HAK"):
        assert tokenizer.prompt(name, "transcribe", True) == [special.sot, HAKKA, special.transcribe]
    assert tokenizer.decode([HAKKA, 400]) == tokenizer.decode([400])


def test_a_mark_that_the_generation_config_does_not_list_is_no_language(
    tokenizer: WhisperTokenizer, base: WhisperTokenizer, folder: Path, tmp_path: Path
):
    assert tokenizer.special.languages.keys() - base.special.languages.keys() == {"hak"}
    with pytest.raises(InputError, match="unknown language 'spk'"):
        tokenizer.prompt("spk", "transcribe", True)
    shutil.copy(folder / "tokenizer.json", tmp_path)
    unlisted = WhisperTokenizer.from_pretrained(tmp_path)  # without a list, its look is all that is known
    assert unlisted.special.languages["hak"] == HAKKA


def test_the_default_language_may_be_one_that_was_added(folder: Path, tokenizer: WhisperTokenizer):
    assert GenerationSettings.from_folder(folder, tokenizer.special).language == "hak"
