"""Joined recordings and their labels: the audio lies where the timestamps say, no token is lost."""

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
import pytest

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import DecodedExample, DurationLimits, SampleError, TextPart
from flax_distil.data.example import Example
from flax_distil.data.preprocessing.config import LabelConfig
from flax_distil.data.preprocessing.labels import LabelBuilder, LabelTokens, sample_random
from flax_distil.data.preprocessing.packed_audio import decode_pack, join_audio
from flax_distil.data.preprocessing.packing import pack_rows
from flax_distil.text.timestamps import split_segments
from flax_distil.text.tokenizer import WhisperTokenizer

TIMED = LabelConfig(language="en", timestamp_probability=1.0)


def random() -> np.random.Generator:
    return sample_random(seed=0, epoch=0, sample_id="a")


@pytest.fixture(scope="module")
def timed(train) -> SpeechDataset:
    """The corpus with timestamped labels; every third has none. Recordings are 0.02 s steps long."""
    labels = [
        f" {text}" if index % 3 == 0 else f"<|0.00|> {text}<|{int(seconds * 50) / 50:.2f}|>"
        for index, (text, seconds) in enumerate(zip(train.references(), train.durations(), strict=True))
    ]
    data = train.with_columns({"whisper_transcript": labels})
    return dataclasses.replace(data, label_column="whisper_transcript")


@pytest.fixture(scope="module")
def decoded(timed) -> list[tuple[tuple[Example, ...], DecodedExample]]:
    """The first packs of the corpus, decoded; no row is left out."""
    packed = pack_rows(timed)
    packs = [packed.read(number).rows for number in range(8)]
    return [(rows, decode_pack(rows, DurationLimits(), refuse)) for rows in packs]


def refuse(row: Example, error: SampleError) -> None:
    raise AssertionError(f"{row.sample_id}: {error}")


def audio_of(row: Example) -> np.ndarray:
    return decoded_file(row.audio["path"])


decoded_file = functools.cache(decode_audio)  # 4 minutes of speech: 15 MB


def test_each_recording_lies_exactly_at_its_parts_times(decoded):
    for rows, pack in decoded:
        for row, part in zip(rows, pack.parts, strict=True):
            start, end = (round(seconds * 50) * 320 for seconds in (part.start, part.end))
            assert (start / SAMPLING_RATE, end / SAMPLING_RATE) == (part.start, part.end)
            samples_W = audio_of(row)
            assert 0 <= end - start - len(samples_W) < 320
            np.testing.assert_array_equal(pack.samples_W[start:][: len(samples_W)], samples_W)
            assert not pack.samples_W[start + len(samples_W) : end].any()
        assert len(pack.samples_W) == end <= 480_000
        assert pack.duration_seconds == end / SAMPLING_RATE


@pytest.mark.parametrize("tokenizer", ["english_tokenizer", "multilingual_tokenizer"])
def test_segments_cut_out_at_their_timestamps_are_the_recordings(decoded, tokenizer, request):
    """What a label says, and when: each segment's text and samples against those of its row."""
    tokenizer: WhisperTokenizer = request.getfixturevalue(tokenizer)
    builder = LabelBuilder(tokenizer, TIMED)
    for rows, pack in decoded:
        label = builder.build_joined(pack.parts, random=random())
        segments = split_segments(label.tokens, tokenizer.special)
        for row, segment in zip(rows, segments, strict=True):
            assert tokenizer.decode(segment.tokens) == f" {row.reference}"
            start, end = (round(seconds * SAMPLING_RATE) for seconds in (segment.start, segment.end))
            samples_W = audio_of(row)
            # An end lies at most a step before or behind that of the recording; the start is exact.
            assert abs(end - start - len(samples_W)) < 320
            length = min(end - start, len(samples_W))
            np.testing.assert_array_equal(pack.samples_W[start : start + length], samples_W[:length])


@pytest.mark.parametrize("tokenizer", ["english_tokenizer", "multilingual_tokenizer"])
@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_every_token_of_every_label_survives_in_order(timed, tokenizer, probability, request):
    tokenizer: WhisperTokenizer = request.getfixturevalue(tokenizer)
    config = LabelConfig(language="en", timestamp_probability=probability)
    builder, special = LabelBuilder(tokenizer, config), tokenizer.special
    rows_of, count = list(timed.rows_without_audio()), 0
    for numbers in pack_rows(timed, labels=builder).packs:
        rows = [rows_of[number] for number in numbers]
        ends = np.cumsum([math.ceil(row.duration_seconds * 50) for row in rows]) / 50
        parts = [
            TextPart(text=row.label, start=float(start), end=float(end))
            for row, start, end in zip(rows, [0.0, *ends], ends, strict=False)
        ]
        tokens = builder.build_joined(parts, random=random()).tokens.tolist()
        text = [
            token for token in tokens if not special.is_special(token) and not special.is_timestamp(token)
        ]
        # By the tokenizer alone, one label after the other.
        expected = [token for row in rows for token in tokenizer.encode(f" {row.reference}")]
        assert text == expected
        stamps = [token for token in tokens if special.is_timestamp(token)]
        assert len(stamps) == (2 * len(rows) if probability else 0)
        assert stamps == sorted(stamps)
        assert (special.no_timestamps in tokens) == (not probability)
        count += len(text)
    assert count > 2000


def test_a_click_is_heard_at_the_time_its_label_gives(english_tokenizer):
    """A click 1.34 s into its recording, which begins behind two of odd lengths."""
    click_W = np.zeros(40_001, np.float32)
    click_W[round(1.34 * SAMPLING_RATE)] = 1.0
    before = [np.full(length, 0.25, np.float32) for length in (16_001, 7_777)]
    joined_W, bounds = join_audio([*before, click_W])
    texts = [" One.", "<|0.00|> Two.<|0.48|>", "<|1.34|> Click.<|2.00|>"]
    parts = [
        TextPart(text=text, start=start, end=end) for text, (start, end) in zip(texts, bounds, strict=True)
    ]
    label = LabelBuilder(english_tokenizer, TIMED).build_joined(parts, random=random())
    segment = split_segments(label.tokens, english_tokenizer.special)[2]
    assert english_tokenizer.decode(segment.tokens) == " Click."
    (heard,) = np.flatnonzero(joined_W == 1.0)
    assert heard == round(segment.start * SAMPLING_RATE)
    assert bounds == [(0.0, 1.02), (1.02, 1.52), (1.52, 4.04)]
    assert joined_W.dtype == np.float32


def test_more_than_thirty_seconds_are_not_joined():
    second_W = np.zeros(SAMPLING_RATE, np.float32)
    assert len(join_audio([second_W] * 30)[0]) == 480_000
    with pytest.raises(ValueError, match="at most 30 s"):
        join_audio([*[second_W] * 30, second_W[:1]])
    with pytest.raises(ValueError, match="at most 30 s"):
        join_audio([])


def test_unusable_recordings_are_left_out_with_their_labels(flawed):
    rejected = []
    rows = [flawed.row(index) for index in (2, 3, 4)]
    pack = decode_pack(rows, DurationLimits(), lambda row, error: rejected.append((row.index, error.kind)))
    assert rejected == [(3, "with unreadable audio")]
    assert [part.text for part in pack.parts] == [rows[0].label, rows[2].label]
    assert pack.parts[1].start == pack.parts[0].end
    assert pack.reference == f"{rows[0].reference} {rows[2].reference}"
    assert pack.index == 2
    assert pack.sample_id == rows[0].sample_id
    assert decode_pack(rows[1:2], DurationLimits(), lambda row, error: None) is None


def test_a_recording_longer_than_its_duration_told_is_left_out_where_it_does_not_fit(train):
    longest = max(train.rows_without_audio(), key=lambda row: row.duration_seconds)
    told = dataclasses.replace(train.row(longest.index), duration_seconds=1.0)
    rejected = []
    pack = decode_pack([told, told], DurationLimits(), lambda row, error: rejected.append(str(error)))
    assert len(pack.parts) == 1
    assert rejected == [
        "25.39 s of audio, stated as 1.00 s: too long to be joined with 25.40 s of other recordings"
    ]
    assert Path(told.audio["path"]).is_file()


# Labels of joined recordings, by hand; ids of tiny.en's vocabulary.
EOT, SOT, PREVIOUS, NO_TIMESTAMPS, ZERO = 50256, 50257, 50360, 50362, 50363
HELLO_WORLD, BYE = [18435, 995, 13], [47843, 13]


def joined_label(tokenizer, *parts: tuple[str | None, float, float], previous=(), config=None) -> LabelTokens:
    builder = LabelBuilder(tokenizer, LabelConfig(**{"timestamp_probability": 1.0, **(config or {})}))
    joined = [TextPart(text=text, start=start, end=end) for text, start, end in parts]
    return builder.build_joined(joined, previous=previous, random=random())


def joined_tokens(tokenizer, *parts: tuple[str | None, float, float], config=None) -> list[int]:
    return joined_label(tokenizer, *parts, config=config).tokens.tolist()


def test_texts_without_timestamps_follow_each_other(english_tokenizer):
    tokens = joined_tokens(english_tokenizer, ("Hello world.", 0.0, 2.0), (" Bye. ", 2.0, 3.0))
    assert tokens == [SOT, NO_TIMESTAMPS, *HELLO_WORLD, *BYE, EOT]


def test_a_text_without_timestamps_gets_those_of_its_recording(english_tokenizer):
    tokens = joined_tokens(
        english_tokenizer,
        ("Hello world.", 0.0, 2.0),
        ("<|0.10|> Bye.<|0.60|>", 2.0, 3.0),
        ("", 3.0, 4.0),
        ("<|0.00|> Bye.", 4.0, 5.0),
    )
    assert tokens == [
        *(SOT, ZERO, *HELLO_WORLD, ZERO + 100),
        *(ZERO + 105, *BYE, ZERO + 130),
        *(ZERO + 200, *BYE, ZERO + 250, EOT),
    ]


def test_a_timestamp_behind_its_recording_is_that_of_its_end(english_tokenizer):
    tokens = joined_tokens(
        english_tokenizer, ("<|0.00|> Hello world.<|30.00|>", 0.0, 2.0), ("<|0.00|> Bye.<|1.00|>", 2.0, 3.0)
    )
    assert tokens == [SOT, ZERO, *HELLO_WORLD, ZERO + 100, ZERO + 100, *BYE, ZERO + 150, EOT]


def test_a_space_separates_texts_also_behind_a_timestamp(english_tokenizer):
    parts = (("<|0.00|>Hello world.<|1.00|>", 0.0, 1.0), ("<|0.00|>Bye.<|1.00|>", 1.0, 2.0))
    tokens = joined_tokens(english_tokenizer, *parts, config={"timestamp_probability": 0.0})
    assert english_tokenizer.decode(tokens) == " Hello world. Bye."


def test_rounding_happens_on_the_time_of_the_whole(english_tokenizer):
    tokens = joined_tokens(
        english_tokenizer,
        ("<|0.00|> Hello world.<|1.06|>", 0.0, 1.06),
        ("<|0.06|> Bye.<|0.60|>", 1.06, 2.0),
        config={"round_timestamps": True},
    )
    # 1.06 -> 1.1; 1.12 -> 1.1; 1.66 -> 1.7
    assert tokens == [SOT, ZERO, *HELLO_WORLD, ZERO + 55, ZERO + 55, *BYE, ZERO + 85, EOT]


def test_previous_texts_are_one_prompt_and_no_target(english_tokenizer):
    config = {"condition_on_prev_probability": 1.0, "timestamp_probability": 0.0}
    parts = (("<|0.00|> Bye.<|1.00|>", 0.0, 1.0), ("Bye.", 1.0, 2.0))
    previous = ("<|0.00|> Hello world.<|1.00|>", "Bye.")
    label = joined_label(english_tokenizer, *parts, previous=previous, config=config)
    learned = [NO_TIMESTAMPS, *BYE, *BYE, EOT]
    assert label.tokens.tolist() == [PREVIOUS, *HELLO_WORLD, *BYE, SOT, *learned]
    assert label.labels_T[label.loss_mask_T].tolist() == learned
    config["condition_on_prev_probability"] = 0.0
    never = joined_label(english_tokenizer, *parts, previous=previous, config=config)
    assert never.tokens.tolist() == [SOT, *learned]


def test_languages_without_spaces_are_joined_without(multilingual_tokenizer):
    tokens = joined_tokens(
        multilingual_tokenizer, ("你好", 0.0, 1.0), ("再见", 1.0, 2.0), config={"language": "zh"}
    )
    assert multilingual_tokenizer.decode(tokens) == "你好再见"


def test_joined_labels_that_are_missing_or_too_long_are_refused(english_tokenizer):
    with pytest.raises(SampleError, match="one of its recordings has no text"):
        joined_tokens(english_tokenizer, ("Bye.", 0.0, 1.0), (None, 1.0, 2.0))
    parts = (("<|0.00|> Bye.<|0.50|>", 0.0, 1.0), ("Bye.", 1.0, 2.0))
    with pytest.raises(SampleError, match="its label has 9 tokens: at most 8"):
        joined_tokens(english_tokenizer, *parts, config={"max_label_length": 8})


def test_the_length_of_parts_covers_what_is_built(english_tokenizer):
    builder = LabelBuilder(english_tokenizer, LabelConfig(timestamp_probability=1.0))
    texts = ["Hello world.", "<|0.10|> Bye.<|0.60|>", "", "<|0.00|> Bye."]
    assert [builder.part_length(text) for text in texts] == [5, 4, 0, 4]
    parts = [TextPart(text=text, start=n * 1.0, end=n + 1.0) for n, text in enumerate(texts)]
    label = builder.build_joined(parts, random=random())
    room = builder.max_label_length - builder.max_parts_length
    assert sum(map(builder.part_length, texts)) + room >= len(label.decoder_input_ids_T)
