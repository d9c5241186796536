"""Batches have few shapes, and padding is marked everywhere."""

import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import DecodedExample
from flax_distil.data.preprocessing.labels import LabelTokens
from flax_distil.data.training.batches import (
    TokenizedExample,
    check_buckets,
    collate,
    stack_audio,
    stack_labels,
)


def label(length: int, given: int = 1) -> LabelTokens:
    return LabelTokens(tokens=np.arange(1, length + 2, dtype=np.int32), given=given)


def sample(
    index: int, seconds: float, *, audio: bool = True, tokens: LabelTokens | None = None
) -> TokenizedExample:
    samples_W = np.full(int(seconds * 16_000), 0.5, np.float32) if audio else None
    return TokenizedExample(
        sample=DecodedExample(
            index=index,
            sample_id=f"s{index}",
            samples_W=samples_W,
            duration_seconds=seconds,
            reference=None,
            label=None,
        ),
        label=None,
    )


def test_labels_are_padded_to_the_smallest_bucket_that_holds_them():
    for longest, bucket in ((1, 4), (4, 4), (5, 8)):
        arrays = stack_labels([label(longest), label(1)], batch_size=2, pad_token=9, buckets=(4, 8))
        assert {array.shape for array in arrays.values()} == {(2, bucket)}
    with pytest.raises(ValueError, match="at most 8 tokens, got 9"):
        stack_labels([label(9)], batch_size=1, pad_token=9, buckets=(4, 8))


def test_padding_and_prompt_do_not_count_as_labels():
    arrays = stack_labels([label(3), None, label(4, given=3)], batch_size=4, pad_token=9, buckets=(5,))
    np.testing.assert_array_equal(
        arrays["decoder_input_ids_BT"],
        [[1, 2, 3, 9, 9], [9, 9, 9, 9, 9], [1, 2, 3, 4, 9], [9, 9, 9, 9, 9]],
    )
    np.testing.assert_array_equal(
        arrays["labels_BT"], [[2, 3, 4, 9, 9], [9, 9, 9, 9, 9], [2, 3, 4, 5, 9], [9, 9, 9, 9, 9]]
    )
    np.testing.assert_array_equal(
        arrays["loss_mask_BT"].astype(int),
        [[1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]],
    )


def test_recordings_fill_their_rows_from_the_left_and_silence_the_rest():
    samples_BW = stack_audio([np.ones(480_000, np.float32), None, np.ones(3, np.float32)], batch_size=4)
    assert samples_BW.shape == (4, 480_000)
    assert samples_BW.sum(axis=1).tolist() == [480_000, 0, 3, 0]
    assert samples_BW[2, :4].tolist() == [1, 1, 1, 0]


def test_rows_that_are_missing_are_marked_in_every_array():
    batch = collate([sample(5, 1.0), sample(6, 2.0)], batch_size=3, pad_token=0, buckets=None)
    assert batch.valid_B.tolist() == [True, True, False]
    assert batch.has_audio_B.tolist() == [True, True, False]
    assert batch.index_B.tolist() == [5, 6, -1]
    assert batch.duration_B.tolist() == [1.0, 2.0, 0.0]
    assert batch.ids == ["s5", "s6", ""]
    assert not batch.samples_BW[2].any()
    assert batch.labels_BT is None


def test_audio_is_left_out_when_no_row_needs_it():
    batch = collate([sample(0, 1.0, audio=False)] * 2, batch_size=2, pad_token=0, buckets=None)
    assert batch.samples_BW is None
    assert batch.has_audio_B.tolist() == [False, False]
    assert batch.duration_B.tolist() == [1.0, 1.0]
    mixed = [sample(0, 1.0, audio=False), sample(1, 1.0)]
    batch = collate(mixed, batch_size=2, pad_token=0, buckets=None)
    assert batch.has_audio_B.tolist() == [False, True]
    assert batch.samples_BW.any(axis=1).tolist() == [False, True]


def test_a_batch_without_samples_has_the_shapes_and_types_of_any_other():
    tokens = TokenizedExample(sample=sample(0, 1.0).sample, label=label(3))
    options = {"batch_size": 2, "pad_token": 9, "buckets": (4,), "always_audio": True}
    full, empty = collate([tokens], **options), collate([], **options)
    for name, value in vars(full).items():
        if isinstance(value, np.ndarray):
            other = getattr(empty, name)
            assert (other.shape, other.dtype) == (value.shape, value.dtype), name
        elif value is None:
            assert getattr(empty, name) is None
    assert empty.ids == ["", ""]
    assert empty.index_B.tolist() == [-1, -1]
    assert (empty.labels_BT == 9).all()
    for name in ("samples_BW", "has_audio_B", "duration_B", "valid_B", "loss_mask_BT"):
        assert not getattr(empty, name).any(), name


def test_a_batch_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match="expected at most 2 samples, got 3"):
        collate([sample(0, 1.0)] * 3, batch_size=2, pad_token=0, buckets=None)


def test_buckets_must_ascend_and_hold_every_label():
    check_buckets((32, 448), longest=448)
    with pytest.raises(InputError, match="must ascend"):
        check_buckets((64, 32), longest=32)
    with pytest.raises(InputError, match=r"longest label \(256\) and 448, got 128"):
        check_buckets((32, 128), longest=256)
    with pytest.raises(InputError, match="got 500"):
        check_buckets((32, 500), longest=256)
