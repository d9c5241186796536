from pathlib import Path
from typing import Any

import pytest

from flax_distil.core.errors import InputError
from flax_distil.text.tokenizer import MAX_PREVIOUS_TOKENS, WhisperTokenizer


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize(
    ("language", "task"), [("en", "transcribe"), ("German", "translate"), ("he", "transcribe")]
)
def test_multilingual_prompts_equal_those_of_transformers(
    base: WhisperTokenizer, base_dir: Path, language: str, task: str, timestamps: bool
):
    import transformers

    theirs = transformers.WhisperTokenizer.from_pretrained(
        base_dir, language=language, task=task, predict_timestamps=timestamps
    )
    prompt = base.prompt(language, task, timestamps)
    assert prompt == theirs.prefix_tokens
    forced = theirs.get_decoder_prompt_ids(language=language, task=task, no_timestamps=not timestamps)
    assert [(position, token) for position, token in enumerate(prompt) if position] == forced


def test_cantonese_prompt_equals_that_of_transformers(large_v3_dir: Path):
    import transformers

    theirs = transformers.WhisperTokenizer.from_pretrained(
        large_v3_dir, language="cantonese", task="transcribe"
    )
    prompt = WhisperTokenizer.from_pretrained(large_v3_dir).prompt("cantonese", "transcribe", False)
    assert prompt == theirs.prefix_tokens == [50258, 50358, 50360, 50364]


@pytest.mark.parametrize("language", [None, "en", "English"])
def test_english_only_prompts_have_no_language_and_no_task(
    tiny_en: WhisperTokenizer, tiny_en_dir: Path, language: str | None
):
    import transformers

    theirs = transformers.WhisperTokenizer.from_pretrained(tiny_en_dir)
    assert tiny_en.prompt(language, "transcribe", False) == theirs.prefix_tokens == [50257, 50362]
    assert tiny_en.prompt(language, None, True) == [50257]


def test_previous_text_equals_the_prompt_of_transformers(ours: WhisperTokenizer, theirs: Any):
    expected = theirs.get_prompt_ids("Previously, on stage.").tolist()
    previous = ours.encode(" Previously, on stage.")
    prompt = ours.prompt("en", "transcribe", False, previous)
    assert prompt == expected + ours.prompt("en", "transcribe", False)


def test_previous_text_keeps_its_end_and_fills_half_of_the_positions(base: WhisperTokenizer):
    previous = list(range(1000, 1400))
    prompt = base.prompt("en", "transcribe", True, previous)
    assert prompt[0] == base.special.sot_prev
    assert prompt[1:-3] == previous[-MAX_PREVIOUS_TOKENS:]
    assert len(prompt[:-3]) == 448 // 2


def test_no_previous_text_means_no_token_for_it(base: WhisperTokenizer):
    assert base.prompt("en", "transcribe", True, [])[0] == base.special.sot


def test_prompts_leave_the_tokenizer_as_it_was(base: WhisperTokenizer):
    first = base.prompt("en", "transcribe", False)
    base.prompt("fr", "translate", True, [1, 2])
    assert base.prompt("en", "transcribe", False) == first
    assert base.encode(" text") == base.encode(" text")


def test_special_tokens_in_the_previous_text_are_refused(base: WhisperTokenizer):
    with pytest.raises(ValueError, match="special token 50257"):
        base.prompt("en", "transcribe", True, [1, base.special.eot])


def test_a_multilingual_model_requires_a_language(base: WhisperTokenizer):
    with pytest.raises(InputError, match="needs a language"):
        base.prompt(None, "transcribe", False)


def test_an_unknown_task_is_refused(base: WhisperTokenizer):
    with pytest.raises(InputError, match="unknown task 'summarise'"):
        base.prompt("en", "summarise", False)


def test_a_language_the_vocabulary_lacks_is_refused(base: WhisperTokenizer):
    with pytest.raises(InputError, match="no token for language 'cantonese'"):
        base.prompt("cantonese", "transcribe", False)


@pytest.mark.parametrize(
    ("language", "task"), [("french", "transcribe"), ("en", "translate"), (None, "translate")]
)
def test_an_english_only_model_refuses_other_languages_and_tasks(
    tiny_en: WhisperTokenizer, language: str | None, task: str
):
    with pytest.raises(InputError, match="English-only"):
        tiny_en.prompt(language, task, False)
