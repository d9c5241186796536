"""What cannot be transcribed is refused before anything is allocated or compiled."""

import dataclasses

import pytest

from flax_distil.core import InputError
from flax_distil.generation import SearchOptions
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


def test_timestamps_of_a_model_without_them_are_refused(weightless_tiny_en):
    config = dataclasses.replace(weightless_tiny_en.config, vocab_size=50363)
    without = dataclasses.replace(weightless_tiny_en, config=config)
    without.transcriber()
    with pytest.raises(InputError, match="timestamps are asked of a model without them"):
        without.transcriber(return_timestamps=True)


def test_more_beams_than_tokens_are_refused(weightless_tiny_en):
    config = dataclasses.replace(weightless_tiny_en.config, vocab_size=30)
    tiny = dataclasses.replace(weightless_tiny_en, config=config)
    tiny.transcriber(search=SearchOptions(num_beams=29))
    with pytest.raises(InputError, match="num_beams 30 is not below the vocabulary of 30"):
        tiny.transcriber(search=SearchOptions(num_beams=30))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"prompt": "word " * 224}, "the prompt has 224 tokens, and at most 223 are taken: shorten it"),
        ({"prompt_ids": (5,) * 224}, "the prompt has 224 tokens, and at most 223 are taken: shorten it"),
        ({"prompt_ids": (5, 50257)}, "prompt_ids hold 50257, which is no id of text"),
        ({"prompt_ids": (-1,)}, "prompt_ids hold -1, which is no id of text"),
        ({"prefix": "word " * 230}, "the prefix has 230 tokens, and at most 223 are taken: shorten it"),
        ({"prefix": "word " * 100, "max_new_tokens": 400}, "has room for 346 tokens after the prompt"),
        ({"language": "fr"}, "language 'fr' with an English-only model"),
    ],
)
def test_prompts_that_do_not_fit_are_refused_before_anything_is_compiled(
    weightless_tiny_en, options, complaint, compilations
):
    def refuse():
        with pytest.raises(InputError, match=complaint):
            weightless_tiny_en.transcriber(**options)

    assert compilations(refuse) == []


def test_a_language_goes_by_name_or_code():
    assert TranscriptionOptions(language="German").language == "de"
    assert TranscriptionOptions(language="de").language == "de"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"language": "klingon"}, "klingon"),
        ({"task": "summarise"}, "task 'summarise' is unknown: expected transcribe or translate"),
        ({"max_new_tokens": 0}, "max_new_tokens 0 is below 1"),
        ({"prompt": "a", "prompt_ids": (1,)}, "prompt and prompt_ids are both given: choose one"),
        ({"temperature": ()}, "temperature is empty"),
        ({"temperature": (0.0, -0.1)}, "temperature -0.1 is not a number of at least 0"),
        ({"temperature": (float("nan"),)}, "temperature nan is not a number of at least 0"),
        ({"seed": -1}, "seed -1 is not between 0 and"),
    ],
)
def test_unknown_languages_and_tasks_and_empty_transcripts_are_refused(options, complaint):
    with pytest.raises(InputError, match=complaint):
        TranscriptionOptions(**options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_beams": 0}, "num_beams 0 is not between 1 and 100"),
        ({"num_beams": 101}, "num_beams 101 is not between 1 and 100"),
        ({"best_of": 0}, "best_of 0 is not between 1 and 100"),
        ({"num_beams": 5, "patience": 0.0}, "patience 0 is not a number above 0"),
        ({"num_beams": 5, "patience": 0.1}, "patience 0.1 of 5 beams waits for 0 finished ones"),
        ({"num_beams": 5, "patience": 1e9}, "patience 1e.09 of 5 beams waits for 5000000000 finished ones"),
        ({"patience": 2.0}, "patience 2 is given without beams: raise num_beams above 1"),
        ({"length_penalty": 1.5}, "length_penalty 1.5 is not between 0 and 1"),
        ({"top_k": 0}, "top_k 0 is below 1"),
        ({"top_p": 0.0}, "top_p 0 is not above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p 1.5 is not above 0 and at most 1"),
    ],
)
def test_absurd_searches_are_refused(options, complaint):
    with pytest.raises(InputError, match=complaint):
        SearchOptions(**options)
