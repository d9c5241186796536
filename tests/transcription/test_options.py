"""What cannot be transcribed is refused before anything is allocated or compiled."""

import dataclasses

import pytest

from flax_distil.core.errors import InputError
from flax_distil.decoding.options import SearchOptions
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.transcription.options import TranscriptionOptions, clip_times
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
        ({"hotwords": "word " * 224}, "the list of hotwords has 224 tokens, and at most 223 are taken"),
        (
            {"hotwords": "word " * 120, "prompt": "word " * 120, "carry_initial_prompt": True},
            "the prompt with the hotwords has 240 tokens",
        ),
        ({"suppress_tokens": (51864,)}, "suppress_tokens hold 51864, which is no id of this vocabulary"),
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
    assert TranscriptionOptions(language="German").language_code == "de"
    assert TranscriptionOptions(language="de").language_code == "de"


def test_an_option_wins_over_the_checkpoints_own_language_and_task():
    settings = GenerationSettings(is_multilingual=True, language="fr", task="translate")

    def chosen(**options):
        resolved = TranscriptionOptions(**options).for_checkpoint(settings)
        return resolved.language, resolved.task

    assert chosen() == ("fr", "translate")
    assert chosen(language="de", task="transcribe") == ("de", "transcribe")
    assert chosen(language="auto") == (None, "translate")
    assert chosen(multilingual=True) == (None, "translate")
    plain = GenerationSettings(is_multilingual=True)
    resolved = TranscriptionOptions().for_checkpoint(plain)
    assert (resolved.language, resolved.task) == (None, "transcribe")


def test_the_rules_of_a_search_follow_the_options(weightless_tiny_en):
    def processors(**options):
        return weightless_tiny_en.transcriber(**options).generator.processors

    own = processors().suppress_tokens
    marks = {50257, 50357, 50358, 50359, 50360, 50361}  # start, tasks, start of lm, of previous, no speech
    assert set(processors(suppress_tokens=(-1, 5)).suppress_tokens) == {*own, 5} | (marks - {50357, 50358})
    assert set(processors(suppress_tokens=()).suppress_tokens) == {50257, 50359, 50360, 50361}
    assert processors(max_initial_timestamp=0.5).max_initial_timestamp_index == 25
    assert processors().max_initial_timestamp_index == 50
    changed = processors(repetition_penalty=1.2, no_repeat_ngram_size=3)
    assert (changed.repetition_penalty, changed.no_repeat_ngram_size) == (1.2, 3)
    assert not processors().counts_repetitions


def text_before(transcriber, *arguments, **keywords) -> str:
    generator = transcriber.generator
    prompt = generator.prompts.build("en", *arguments, **keywords)
    return generator.tokenizer.decode(prompt, skip_special_tokens=False, with_timestamps=True)


def test_hotwords_and_a_carried_prompt_stand_before_the_previous_text(weightless_tiny_en):
    options = {"hotwords": "Flax", "prompt": "Notes.", "carry_initial_prompt": True, "prefix": "So",
               "return_timestamps": True}  # fmt: skip
    transcriber = weightless_tiny_en.transcriber(**options)
    said = transcriber.generator.tokenizer.encode(" Said.")
    prompts = transcriber.generator.prompts
    assert prompts.initial == ()
    assert text_before(transcriber, said, with_prefix=False) == (
        "<|startofprev|> Flax Notes. Said.<|startoftranscript|>"
    )
    # As in faster-whisper, hotwords have no effect where a prefix is.
    assert text_before(transcriber) == "<|startofprev|> Notes.<|startoftranscript|><|0.00|> So"
    long = prompts.build("en", said * 200, with_prefix=False)
    assert len(long) == 1 + 223 + 1
    assert list(long[1:3]) == transcriber.generator.tokenizer.encode(" Flax")[:2]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"language": "klingon"}, "klingon"),
        ({"task": "summarise"}, "task 'summarise' is unknown: expected transcribe or translate"),
        ({"max_new_tokens": 0}, r"\(max_new_tokens\) 0 is below 1"),
        ({"prompt": "a", "prompt_ids": (1,)}, "prompt and prompt_ids are both given: choose one"),
        ({"temperature": ()}, "temperature is empty"),
        ({"temperature": (0.0, -0.1)}, "temperature -0.1 is not a number of at least 0"),
        ({"temperature": (float("nan"),)}, "temperature nan is not a number of at least 0"),
        ({"seed": -1}, "seed -1 is not between 0 and"),
        ({"multilingual": True, "language": "en"}, "leave out either of them"),
        ({"no_speech_threshold": "none"}, "no_speech_threshold 'none' is neither a number nor 'off'"),
        (
            {"compression_ratio_threshold": 1.35},
            "ids of tokens were meant, token_compression_ratio_threshold 1.35",
        ),
        ({"compression_ratio_threshold": 1.5}, "compression_ratio_threshold 1.5 is too low for text"),
        ({"clip_timestamps": (5.0, 4.0)}, "clip_timestamps 5,4 are not start,end,start,end"),
        ({"clip_timestamps": (-1.0,)}, "clip_timestamps -1 are not start,end"),
        ({"clip_timestamps": (1.0,), "vad": "energy"}, "both choose what is heard"),
        ({"hallucination_silence_threshold": 2.0}, "is about words, whose times are not known"),
        ({"repetition_penalty": 0.0}, "repetition_penalty 0 is not a number above 0"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size -1 is below 0"),
        ({"max_initial_timestamp": 30.5}, "max_initial_timestamp 30.5 is not between 0 and 30 seconds"),
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


def test_clips_are_written_as_openais_code_takes_them():
    assert clip_times("0, 9.5,20") == clip_times([0, 9.5, 20]) == (0.0, 9.5, 20.0)
    assert clip_times("") == ()
    with pytest.raises(InputError, match="clip_timestamps '1;2' are not start,end,start,end"):
        clip_times("1;2")
