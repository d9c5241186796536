import pytest
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from flax_distil.core.errors import InputError
from flax_distil.text.languages import LANGUAGES, language_code, resolve_language
from flax_distil.text.special_tokens import SpecialTokens


def test_there_are_a_hundred_languages_and_all_but_cantonese_are_in_the_base_vocabulary(
    special: SpecialTokens,
):
    assert len(LANGUAGES) == 100
    assert [*special.languages, "yue"] == list(LANGUAGES)


def test_every_name_and_alias_of_transformers_resolves_the_same():
    for name, code in TO_LANGUAGE_CODE.items():
        assert resolve_language(name) == code
        assert resolve_language(code) == code


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("English", "en"), (" ENGLISH ", "en"), ("en-US", "en"), ("pt_br", "pt"), ("<|fr|>", "fr"),
        ("Mandarin", "zh"), ("castilian", "es"), ("iw", "he"), ("jv", "jw"), ("haw", "haw"),
        ("Haitian Creole", "ht"),
    ],
)  # fmt: skip
def test_spellings_people_use_resolve(given: str, code: str):
    assert resolve_language(given) == code


def test_an_unknown_name_is_refused_with_close_matches():
    with pytest.raises(InputError, match=r"unknown language 'Englsh': did you mean 'english' \(en\)"):
        resolve_language("Englsh")


@pytest.mark.parametrize("given", ["xx", "", "klingon-like"])
def test_a_language_nothing_resembles_is_refused(given: str):
    with pytest.raises(InputError, match="one of Whisper's 100 languages"):
        resolve_language(given)


def test_a_code_of_no_language_may_be_one_of_the_checkpoints_own():
    assert language_code("<|hak|>") == language_code("hak") == "hak"
    assert language_code("nan-TW") == "nan-tw"
    assert language_code("en-US") == "en"
    assert resolve_language("HAK", {"hak": 1}) == "hak"
    with pytest.raises(InputError, match="unknown language 'Englsh'"):
        language_code("Englsh")
