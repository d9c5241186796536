"""What cannot be transcribed is refused before anything is allocated or compiled."""

import pytest

from flax_distil.core import InputError
from flax_distil.transcription import TranscriptionOptions
from tests.transcription.models import Model


@pytest.fixture(scope="module")
def weightless_tiny_en(tiny_en_dir) -> Model:
    return Model.open(tiny_en_dir, config_only=True)


@pytest.fixture(scope="module")
def weightless_base(base_dir) -> Model:
    return Model.open(base_dir, config_only=True)


def test_an_english_only_model_takes_english_and_no_other_language(weightless_tiny_en):
    weightless_tiny_en.transcriber(language="English")
    with pytest.raises(InputError, match="language 'fr' with an English-only model"):
        weightless_tiny_en.transcriber(language="fr")


def test_an_english_only_model_does_not_translate(weightless_tiny_en):
    with pytest.raises(InputError, match="task 'translate' with an English-only model"):
        weightless_tiny_en.transcriber(task="translate")


@pytest.mark.parametrize(
    ("options", "room"),
    [({}, 444), ({"language": "fr", "task": "translate"}, 444), ({"return_timestamps": True}, 445)],
)
def test_tokens_beyond_the_models_positions_are_refused(weightless_base, options, room):
    weightless_base.transcriber(**options, max_new_tokens=room)
    with pytest.raises(InputError, match=f"max_new_tokens {room + 1} is too large.* room for {room} tokens"):
        weightless_base.transcriber(**options, max_new_tokens=room + 1)


def test_a_language_goes_by_name_or_code():
    assert TranscriptionOptions(language="German").language == "de"
    assert TranscriptionOptions(language="de").language == "de"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"language": "klingon"}, "klingon"),
        ({"task": "summarise"}, "task 'summarise' is unknown: expected transcribe or translate"),
        ({"max_new_tokens": 0}, "max_new_tokens 0 is below 1"),
    ],
)
def test_unknown_languages_and_tasks_and_empty_transcripts_are_refused(options, complaint):
    with pytest.raises(InputError, match=complaint):
        TranscriptionOptions(**options)
