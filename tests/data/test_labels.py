"""Labels against token ids written out by hand: tiny.en and the multilingual base."""

import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import SampleError
from flax_distil.data.preprocessing.config import LabelConfig
from flax_distil.data.preprocessing.labels import LabelBuilder, sample_random, spoken_text

# Ids of tiny.en's vocabulary.
EOT, SOT, PREVIOUS, NO_TIMESTAMPS, ZERO = 50256, 50257, 50360, 50362, 50363
HELLO_WORLD = [18435, 995, 13]
BEFORE = [7413, 13]


def random() -> np.random.Generator:
    return sample_random(seed=0, epoch=0, sample_id="a")


def test_a_plain_label_learns_everything_after_the_start(english_tokenizer):
    label = LabelBuilder(english_tokenizer, LabelConfig()).build(" Hello world.", random=random())
    assert label.decoder_input_ids_T.tolist() == [SOT, NO_TIMESTAMPS, *HELLO_WORLD]
    assert label.labels_T.tolist() == [NO_TIMESTAMPS, *HELLO_WORLD, EOT]
    assert label.loss_mask_T.tolist() == [True] * 5


def test_a_multilingual_label_learns_language_and_task(multilingual_tokenizer):
    builder = LabelBuilder(multilingual_tokenizer, LabelConfig(language="english"))
    label = builder.build("Hello world.", random=random())
    assert label.tokens.tolist() == [50258, 50259, 50359, 50363, 2425, 1002, 13, 50257]
    assert label.loss_mask_T.tolist() == [True] * 7
    japanese = LabelBuilder(multilingual_tokenizer, LabelConfig(language="ja")).build("你好", random=random())
    assert japanese.tokens.tolist()[:4] == [50258, 50266, 50359, 50363]
    assert multilingual_tokenizer.decode(japanese.tokens[4:-1]) == "你好"  # no space before it


def test_translations_start_with_a_space_whatever_was_spoken(multilingual_tokenizer):
    builder = LabelBuilder(multilingual_tokenizer, LabelConfig(language="ja", task="translate"))
    assert builder.build("Hello world.", random=random()).tokens.tolist() == [
        *(50258, 50266, 50358, 50363),
        *(2425, 1002, 13, 50257),
    ]


def test_the_start_of_a_prompted_label_is_no_target(english_tokenizer):
    builder = LabelBuilder(english_tokenizer, LabelConfig(condition_on_prev_probability=1.0))
    label = builder.build("Hello world.", previous=("Before.",), random=random())
    assert label.tokens.tolist() == [PREVIOUS, *BEFORE, SOT, NO_TIMESTAMPS, *HELLO_WORLD, EOT]
    # Targets are one position on: three of the prompt (the last one is the start itself) are masked.
    assert label.labels_T[~label.loss_mask_T].tolist() == [*BEFORE, SOT]
    assert label.labels_T[label.loss_mask_T].tolist() == [NO_TIMESTAMPS, *HELLO_WORLD, EOT]


def test_a_prompt_changes_nothing_of_what_is_learned(english_tokenizer):
    never = LabelBuilder(english_tokenizer, LabelConfig(condition_on_prev_probability=0.0))
    always = LabelBuilder(english_tokenizer, LabelConfig(condition_on_prev_probability=1.0))
    plain = never.build("Hello world.", previous=("Before.",), random=random())
    prompted = always.build("Hello world.", previous=("Before.",), random=random())
    np.testing.assert_array_equal(plain.labels_T[plain.loss_mask_T], prompted.labels_T[prompted.loss_mask_T])


def test_a_long_prompt_loses_its_beginning_and_never_its_label(english_tokenizer):
    config = LabelConfig(condition_on_prev_probability=1.0, max_label_length=448)
    builder = LabelBuilder(english_tokenizer, config)
    label = builder.build(" word" * 300, previous=(" first" + " previous" * 400,), random=random())
    assert len(label.decoder_input_ids_T) == 448
    assert label.labels_T[label.loss_mask_T].tolist()[1:-1] == english_tokenizer.encode(" word" * 300)
    assert english_tokenizer.encode(" first")[0] not in label.tokens
    full = builder.build(" word" * 446, previous=(" previous",), random=random())
    assert full.tokens[0] == SOT
    short = builder.build(" word", previous=(" previous" * 400,), random=random())
    assert short.given - 1 == 224  # <|startofprev|> and 223 tokens: half of the decoder's positions


TIMED = "<|0.00|> Hello world.<|1.06|>"


def test_timestamps_are_kept_or_stripped_as_probability_says(english_tokenizer):
    keep = LabelBuilder(english_tokenizer, LabelConfig(timestamp_probability=1.0))
    strip = LabelBuilder(english_tokenizer, LabelConfig(timestamp_probability=0.0))
    assert keep.build(TIMED, random=random()).tokens.tolist() == [SOT, ZERO, *HELLO_WORLD, ZERO + 53, EOT]
    assert strip.build(TIMED, random=random()).tokens.tolist() == [SOT, NO_TIMESTAMPS, *HELLO_WORLD, EOT]
    # Without timestamps in the text there are none to keep.
    assert keep.build(" Hello world.", random=random()).tokens[1] == NO_TIMESTAMPS


def test_the_share_of_timestamped_labels_is_the_probability(english_tokenizer):
    builder = LabelBuilder(english_tokenizer, LabelConfig(timestamp_probability=0.2))
    kept = [
        builder.build(TIMED, random=sample_random(seed=1, epoch=0, sample_id=str(index))).tokens[1] == ZERO
        for index in range(2000)
    ]
    # Four standard deviations of a binomial share: 4 * sqrt(0.2 * 0.8 / 2000) = 0.036.
    assert abs(np.mean(kept) - 0.2) < 0.036


def test_the_share_of_prompted_labels_is_the_probability(english_tokenizer):
    builder = LabelBuilder(english_tokenizer, LabelConfig(condition_on_prev_probability=0.2))
    prompted = [
        builder.build(
            TIMED, previous=("Before.",), random=sample_random(seed=1, epoch=0, sample_id=str(index))
        ).tokens[0]
        == PREVIOUS
        for index in range(2000)
    ]
    assert abs(np.mean(prompted) - 0.2) < 0.036  # as above


def test_random_numbers_of_a_name_are_the_same_in_every_process():
    # Written down once: Python's own hash of a string would change from process to process.
    assert sample_random(seed=1, epoch=2, sample_id="talk:7").integers(1 << 32) == 465326194


def test_the_choice_depends_on_seed_epoch_and_row_and_on_nothing_else(english_tokenizer):
    builder = LabelBuilder(english_tokenizer, LabelConfig(timestamp_probability=0.5))

    def choices(seed: int, epoch: int) -> list[int]:
        randoms = [sample_random(seed=seed, epoch=epoch, sample_id=str(index)) for index in range(40)]
        return [int(builder.build(TIMED, random=random).tokens[1]) for random in randoms]

    assert choices(3, 0) == choices(3, 0)
    assert choices(3, 0) != choices(3, 1)
    assert choices(3, 0) != choices(4, 0)


def test_rounded_timestamps_lie_on_tenths_of_a_second(english_tokenizer):
    config = LabelConfig(timestamp_probability=1.0, round_timestamps=True)
    tokens = LabelBuilder(english_tokenizer, config).build(TIMED, random=random()).tokens.tolist()
    assert tokens == [SOT, ZERO, *HELLO_WORLD, ZERO + 55, EOT]  # 1.06 s becomes 1.1 s


def test_special_tokens_spelt_out_in_a_pseudo_label_are_made_anew(multilingual_tokenizer):
    builder = LabelBuilder(multilingual_tokenizer, LabelConfig(language="en"))
    text = "<|startoftranscript|><|de|><|transcribe|><|notimestamps|> Hello world.<|endoftext|>"
    assert builder.build(text, random=random()).tokens.tolist() == [
        *(50258, 50259, 50359, 50363),
        *(2425, 1002, 13, 50257),
    ]
    assert (
        spoken_text("<|startoftranscript|><|0.00|> Hello.<|1.00|><|1.00|> Bye.<|endoftext|>") == "Hello. Bye."
    )


def test_a_silent_recording_is_learned_as_an_end(english_tokenizer):
    label = LabelBuilder(english_tokenizer, LabelConfig()).build("", random=random())
    assert label.tokens.tolist() == [SOT, NO_TIMESTAMPS, EOT]


def test_labels_that_are_missing_or_too_long_are_refused_with_the_reason(english_tokenizer):
    builder = LabelBuilder(english_tokenizer, LabelConfig(max_label_length=5))
    assert len(builder.build("Hello world.", random=random()).decoder_input_ids_T) == 5
    assert builder.length("Hello world.") == 5
    with pytest.raises(SampleError, match="its label has 6 tokens: at most 5 are taken"):
        builder.build("Hello big world.", random=random())
    with pytest.raises(SampleError, match="no text to learn"):
        builder.build(None, random=random())


def test_whether_a_label_is_too_long_does_not_depend_on_chance(english_tokenizer):
    config = LabelConfig(max_label_length=5, timestamp_probability=0.5)
    builder = LabelBuilder(english_tokenizer, config)
    assert builder.length(TIMED) == 6
    for index in range(20):
        with pytest.raises(SampleError):
            builder.build(TIMED, random=sample_random(seed=0, epoch=0, sample_id=str(index)))


def test_wrong_settings_are_told_before_any_label_is_made(english_tokenizer, multilingual_tokenizer):
    with pytest.raises(InputError, match="needs a language"):
        LabelBuilder(multilingual_tokenizer, LabelConfig())
    with pytest.raises(InputError, match="klingon"):
        LabelBuilder(multilingual_tokenizer, LabelConfig(language="klingon"))
    with pytest.raises(InputError, match="English-only"):
        LabelBuilder(english_tokenizer, LabelConfig(language="de"))
    with pytest.raises(InputError, match="timestamp_probability must lie between 0 and 1, got 2"):
        LabelConfig(timestamp_probability=2.0)
    with pytest.raises(InputError, match="max_label_length must lie between 1 and 448"):
        LabelConfig(max_label_length=449)
