import json
from pathlib import Path

import pytest

from flax_distil.core.errors import InputError
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.tokenizer import WhisperTokenizer


def test_english_only_vocabulary_has_the_published_ids_and_no_language(tiny_en: WhisperTokenizer):
    special = tiny_en.special
    assert (special.eot, special.sot, special.sot_prev, special.no_speech) == (50256, 50257, 50360, 50361)
    assert (special.no_timestamps, special.timestamp_begin, special.vocab_size) == (50362, 50363, 51864)
    assert (special.languages, special.transcribe, special.translate) == ({}, None, None)
    assert not special.is_multilingual


def test_multilingual_vocabulary_has_the_published_ids(base: WhisperTokenizer):
    special = base.special
    assert (special.eot, special.sot, special.sot_prev, special.no_speech) == (50257, 50258, 50361, 50362)
    assert (special.translate, special.transcribe) == (50358, 50359)
    assert (special.no_timestamps, special.timestamp_begin, special.vocab_size) == (50363, 50364, 51865)
    assert special.is_multilingual


def test_large_v3_vocabulary_knows_cantonese_and_is_a_token_longer(large_v3_dir: Path):
    special = WhisperTokenizer.from_pretrained(large_v3_dir).special
    assert special.languages["yue"] == 50358
    assert (special.transcribe, special.no_speech) == (50360, 50363)
    assert (special.timestamp_begin, special.vocab_size) == (50365, 51866)


def test_language_ids_are_those_of_the_checkpoint_generation_config(special: SpecialTokens, base_dir: Path):
    expected = json.loads((base_dir / "generation_config.json").read_text())["lang_to_id"]
    assert {f"<|{code}|>": token for code, token in special.languages.items()} == expected


def test_hebrew_is_he_even_where_the_vocabulary_says_iw(special: SpecialTokens):
    vocabulary = {
        "<|endoftext|>": 50257, "<|startoftranscript|>": 50258, "<|en|>": 50259, "<|iw|>": 50260,
        "<|startofprev|>": 50261, "<|nospeech|>": 50262, "<|notimestamps|>": 50263,
    }  # fmt: skip
    assert SpecialTokens.from_vocabulary(vocabulary).languages == {"en": 50259, "he": 50260}


def test_timestamps_absent_from_the_file_make_no_difference(
    special: SpecialTokens, without_timestamps_dir: Path
):
    assert WhisperTokenizer.from_pretrained(without_timestamps_dir).special == special


def test_ids_fall_into_exactly_one_of_text_special_and_timestamp(special: SpecialTokens):
    kinds = [(special.is_special(token), special.is_timestamp(token)) for token in range(special.vocab_size)]
    assert kinds.count((True, False)) == special.timestamp_begin - special.eot
    assert kinds.count((False, True)) == 1501
    assert (True, True) not in kinds


def test_special_tokens_can_be_a_static_argument(special: SpecialTokens, base_dir: Path):
    assert hash(special) == hash(WhisperTokenizer.from_pretrained(base_dir).special)


def test_a_vocabulary_that_is_not_whispers_is_refused_with_all_missing_tokens():
    with pytest.raises(InputError, match=r"model/tokenizer.json has no .*startoftranscript.*notimestamps"):
        SpecialTokens.from_vocabulary({"<|endoftext|>": 0, "a": 1}, origin="model/tokenizer.json")
