"""Texts are normalized as by the Open ASR Leaderboard's scorer, whose output the expectations are."""

import importlib.util
import sys

import pytest

from flax_distil.core.errors import InputError
from flax_distil.text.leaderboard_normalizer import LeaderboardNormalizer


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("Uh, it's twenty-two o'clock; the colour's grey", "it is 220 clock the color s gray"),
        ("Huh, ahm, em, hmm, mm: well, uhuh.", "well"),
        ("John's dog's why's and that's", "john s dog s why is and that is"),
        ("I'ma kinda dunno, 'cause we gotta", "i am going to kinda dunno cause we got to"),
        ("B B C at 5 G, with a b and a b c of i o", "bbc at 5g with a b and abc of i 0"),
        ("The Wi-Fi e-mail was all right, O.K.? 10 a.m.", "the wifi email was alright okay 10 am"),
        ("Et cetera, etcetera, etc.", "etc etc etc"),
        ("Kathryn and Geoffrey MacDonald met Shaun", "catherine and jeffrey mcdonald met sean"),
        ("archaeological cancellation of two travelogues", "archeological cancelation of 2 travelogs"),
        ("It cost $1,000.50, or two and a half million pounds!", "it cost $1000.50 or £2500000"),
    ],
)
def test_english_texts(text, normalized):
    assert LeaderboardNormalizer("en")(text) == normalized


def test_other_languages_lose_marks_and_brackets_and_have_no_rules_of_english():
    german = LeaderboardNormalizer("de")
    assert (
        german("Uh, das «Café» (leise) liegt [hm] über-all; it's O.K.!")
        == "uh das café liegt über all it s o k"
    )


def test_numbers_of_other_languages_are_written_as_words():
    german = LeaderboardNormalizer("de")
    if importlib.util.find_spec("num2words") is None:
        with pytest.raises(InputError, match="flax-distil\\[leaderboard\\]"):
            german("10 000 Bäume")
    else:
        assert german("10 000 Bäume, 3 Häuser") == "zehntausend bäume drei häuser"


def test_a_missing_package_is_named_only_where_numbers_are(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    french = LeaderboardNormalizer("fr")
    assert french("Trois maisons") == "trois maisons"
    with pytest.raises(InputError, match="num2words"):
        french("3 maisons")


@pytest.mark.parametrize(
    ("language", "reference", "is_scored"),
    [
        ("en", "Uh, hmm.", False),
        ("en", "ignore time segment in scoring", False),
        ("en", "Uh, yes.", True),
        ("de", "...", True),
        ("de", " ", False),
    ],
)
def test_a_recording_is_scored_if_something_is_said(language, reference, is_scored):
    assert LeaderboardNormalizer(language).is_scored(reference) is is_scored
