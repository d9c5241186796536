import pytest

from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.timestamps import (
    Segment,
    round_timestamps,
    split_segments,
    strip_timestamp_text,
    strip_timestamps,
    timestamp_seconds,
    timestamp_token,
)
from flax_distil.text.tokenizer import WhisperTokenizer


def test_every_timestamp_survives_seconds_and_back(special: SpecialTokens):
    for token in range(special.timestamp_begin, special.timestamp_end):
        assert timestamp_token(timestamp_seconds(token, special), special) == token


def test_times_have_no_binary_dust(special: SpecialTokens):
    assert timestamp_seconds(special.timestamp_begin + 57, special) == 1.14
    assert timestamp_seconds(special.vocab_size - 1, special) == 30.0


@pytest.mark.parametrize(("seconds", "step"), [(0.0, 0), (0.009, 0), (0.011, 1), (1.8, 90), (29.999, 1500)])
def test_times_go_to_the_nearest_step(special: SpecialTokens, seconds: float, step: int):
    assert timestamp_token(seconds, special) == special.timestamp_begin + step


@pytest.mark.parametrize("seconds", [-0.02, 30.02, float("nan")])
def test_times_outside_of_the_window_are_refused(special: SpecialTokens, seconds: float):
    with pytest.raises(ValueError, match="between 0 and 30 s"):
        timestamp_token(seconds, special)


def test_text_has_no_time(special: SpecialTokens):
    with pytest.raises(ValueError, match="got 50257"):
        timestamp_seconds(special.eot, special)


def test_stripping_ids_agrees_with_stripping_text(base: WhisperTokenizer):
    text = "<|0.00|> One,<|1.00|><|1.50|> two.<|2.00|>"
    ids = strip_timestamps(base.encode(text), base.special)
    assert strip_timestamp_text(text) == base.decode(ids, with_timestamps=True) == " One, two."


def test_stripping_keeps_special_tokens(special: SpecialTokens):
    ids = [special.sot, special.timestamp_begin, 7, special.timestamp_begin + 5, special.eot]
    assert strip_timestamps(ids, special) == [special.sot, 7, special.eot]


@pytest.mark.parametrize(
    ("step", "rounded"), [(0, 0), (2, 0), (3, 5), (4, 5), (7, 5), (8, 10), (1498, 1500), (1500, 1500)]
)
def test_timestamps_round_to_tenths_of_a_second(special: SpecialTokens, step: int, rounded: int):
    ids = [special.timestamp_begin + step, 11, special.eot]
    assert round_timestamps(ids, special) == [special.timestamp_begin + rounded, 11, special.eot]


def test_rounding_never_passes_the_end_and_keeps_order(special: SpecialTokens):
    ids = list(range(special.timestamp_begin, special.timestamp_end))
    rounded = round_timestamps(ids, special, step_seconds=0.14)
    assert rounded == sorted(rounded)
    assert max(rounded) < special.timestamp_end


@pytest.mark.parametrize("step_seconds", [0.0, -0.02, 0.05])
def test_a_grid_that_is_no_multiple_of_the_finest_is_refused(special: SpecialTokens, step_seconds: float):
    with pytest.raises(ValueError, match=r"multiple of 0.02"):
        round_timestamps([], special, step_seconds=step_seconds)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|0.00|> a<|1.80|><|1.80|> b<|3.00|>", [(0.0, 1.8, " a"), (1.8, 3.0, " b")]),
        ("<|0.00|> a<|1.80|> b<|3.00|>", [(0.0, 1.8, " a"), (1.8, 3.0, " b")]),
        ("<|0.00|> a<|1.80|><|2.00|> b", [(0.0, 1.8, " a"), (2.0, None, " b")]),
        (" a<|1.00|>", [(None, 1.0, " a")]),
        (" a", [(None, None, " a")]),
        ("<|0.00|><|2.00|><|2.00|> a<|3.00|>", [(2.0, 3.0, " a")]),
        ("<|0.00|>", []),
        ("", []),
    ],
)
def test_segments_are_cut_at_timestamps(base: WhisperTokenizer, text: str, expected: list[tuple]):
    ids = [*base.prompt("en", "transcribe", True), *base.encode(text), base.special.eot]
    assert split_segments(ids, base.special) == [
        Segment(start=start, end=end, tokens=tuple(base.encode(words))) for start, end, words in expected
    ]
