"""Collate samples of any length into arrays of few shapes, so that compiled steps are reused."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from flax_distil.audio.clip import to_int16
from flax_distil.audio.constants import CHUNK_SAMPLES
from flax_distil.core.arrays import Bool, Float, Int
from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import DecodedExample
from flax_distil.data.preprocessing.config import DECODER_POSITIONS
from flax_distil.data.preprocessing.labels import LabelTokens

FLOAT32 = np.dtype(np.float32)

_STEP_ARRAYS = (
    "decoder_input_ids_BT", "labels_BT", "loss_mask_BT", "samples_BW", "lengths_B", "seed_B",
    "encoder_out_BSD", "mel_BRM", "teacher_mel_BRM",
)  # fmt: skip
_HOST_FIELDS = (
    "ids", "index_B", "valid_B", "has_audio_B", "duration_B", "source_B", "epoch", "references",
)  # fmt: skip


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=_STEP_ARRAYS, meta_fields=(), drop_fields=_HOST_FIELDS
)
@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch, on the host and on the devices.

    As a tree of JAX it has only the arrays that a step takes; what says where its rows come from stays on
    the host. Their ``PartitionSpec`` is ``ROWS`` of ``parallel/partitioner.py`` for all of them, or
    ``MICRO_BATCHES`` after :meth:`in_micro_batches`. A field that a batch lacks is None.

    Attributes:
        decoder_input_ids_BT: int32, tokens that the decoder reads; T is a bucket of lengths.
        labels_BT: int32, the same tokens one position on.
        loss_mask_BT: Bool, which labels count.
        samples_BW: 16 kHz, float32 or int16, zeros behind each recording.
        lengths_B: int32, number of samples of each recording, where its audio is changed on the devices.
        seed_B: uint32, seed of what is done to the audio on the devices.
        encoder_out_BSD: Outputs of a frozen encoder, instead of samples.
        mel_BRM: float32, log-mel frames that the student hears.
        teacher_mel_BRM: Log-mel frames that the teacher hears, where its window is longer.
        ids: Stable names of the samples; ``""`` in padding.
        index_B: int64, row in the data set; -1 in padding.
        valid_B: Bool, False in padding.
        has_audio_B: Bool, False in padding, and where audio was not asked for.
        duration_B: float32, seconds.
        source_B: int32, number of the data set, while training.
        epoch: Number of passes that had been made over the data set of the first sample, while training.
        references: Whole reference texts, in an evaluation; ``""`` where there is none.
    """

    decoder_input_ids_BT: Any = None
    labels_BT: Any = None
    loss_mask_BT: Any = None
    samples_BW: Any = None
    lengths_B: Any = None
    seed_B: Any = None
    encoder_out_BSD: Any = None
    mel_BRM: Any = None
    teacher_mel_BRM: Any = None
    ids: Sequence[str] = ()
    index_B: Any = None
    valid_B: Any = None
    has_audio_B: Any = None
    duration_B: Any = None
    source_B: Any = None
    epoch: int = 0
    references: Sequence[str] = ()

    def in_micro_batches(self, count: int) -> "Batch":
        """Return the arrays of the step with their rows divided into ``count`` micro-batches, [K, B, …]."""
        divided: Batch = jax.tree.map(lambda array: array.reshape(count, -1, *array.shape[1:]), self)
        return divided


LABEL_BUCKETS = (32, 64, 128, 256, DECODER_POSITIONS)
"""Target lengths that batches are padded to: one compilation each."""


@dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """One sample with its label.

    Attributes:
        sample: Audio and texts.
        label: Tokens; None where the sample has no usable label (evaluation only).
        source: Number of the data set it comes from.
        epoch: How many times the data set had been passed over when it was drawn.
    """

    sample: DecodedExample
    label: LabelTokens | None
    source: int = 0
    epoch: int = 0


def collate(
    samples: Sequence[TokenizedExample],
    *,
    batch_size: int,
    pad_token: int,
    buckets: Sequence[int] | None,
    always_audio: bool = False,
    audio_dtype: np.dtype = FLOAT32,
    window_samples: int = CHUNK_SAMPLES,
) -> Batch:
    """Join samples to one batch.

    Args:
        samples: At most ``batch_size``; without any, the whole batch is padding.
        batch_size: Rows of the batch; missing ones are padding.
        pad_token: Fills inputs and targets after each label.
        buckets: Target lengths, ascending; None leaves labels out.
        always_audio: Give ``samples_BW`` even if no row has audio, so that all batches are alike.
        audio_dtype: Type of ``samples_BW``: float32, or int16 for half the memory and transfer.
        window_samples: W, what the encoder hears at once; 480,000 by default.

    Returns:
        The batch, on the host; without ``samples_BW`` if no row has audio, unless ``always_audio``.

    Raises:
        ValueError: If there are too many samples.
    """
    if len(samples) > batch_size:
        raise ValueError(f"expected at most {batch_size} samples, got {len(samples)}")
    missing = batch_size - len(samples)
    read = [item.sample for item in samples]
    has_audio = [sample.samples_W is not None for sample in read]
    arrays: dict[str, Any] = {}
    if always_audio or any(has_audio):
        arrays["samples_BW"] = stack_audio(
            [sample.samples_W for sample in read],
            batch_size=batch_size,
            dtype=audio_dtype,
            window_samples=window_samples,
        )
    if buckets is not None:
        labels = [item.label for item in samples]
        arrays |= stack_labels(labels, batch_size=batch_size, pad_token=pad_token, buckets=buckets)
    return Batch(
        has_audio_B=np.array(has_audio + [False] * missing, np.bool_),
        duration_B=np.array([sample.duration_seconds for sample in read] + [0.0] * missing, np.float32),
        index_B=np.array([sample.index for sample in read] + [-1] * missing, np.int64),
        valid_B=np.arange(batch_size) < len(read),
        ids=[sample.sample_id for sample in read] + [""] * missing,
        **arrays,
    )


def stack_audio(
    samples: Sequence[Float[np.ndarray, " _"] | None],
    *,
    batch_size: int,
    dtype: np.dtype = FLOAT32,
    window_samples: int = CHUNK_SAMPLES,
) -> Float[np.ndarray, "B W"] | Int[np.ndarray, "B W"]:
    """Put recordings of at most a window into rows of one window.

    Args:
        samples: Mono, 16 kHz; None leaves silence.
        batch_size: Rows; those after the last recording are silence.
        dtype: float32, or int16: full scale becomes 32768, so 16-bit recordings of 16 kHz stay as they are.
        window_samples: Samples of a row; 30 s by default.

    Returns:
        ``[batch_size, window_samples]``.
    """
    samples_BW = np.zeros((batch_size, window_samples), dtype)
    for row, samples_W in enumerate(samples):
        if samples_W is not None:
            samples_BW[row, : len(samples_W)] = samples_W if dtype == FLOAT32 else to_int16(samples_W)
    return samples_BW


def stack_labels(
    labels: Sequence[LabelTokens | None], *, batch_size: int, pad_token: int, buckets: Sequence[int]
) -> dict[str, Int[np.ndarray, "B T"] | Bool[np.ndarray, "B T"]]:
    """Pad labels to the smallest bucket that holds all of them.

    Args:
        labels: One per sample; None becomes a row whose targets do not count.
        batch_size: Rows.
        pad_token: Fills what is after each label.
        buckets: Target lengths, ascending.

    Returns:
        ``decoder_input_ids_BT``, ``labels_BT``, ``loss_mask_BT``.

    Raises:
        ValueError: If a label is longer than the last bucket.
    """
    lengths = [0 if label is None else len(label.tokens) - 1 for label in labels]
    length = smallest_bucket(max(lengths, default=0), buckets)
    inputs_BT = np.full((batch_size, length), pad_token, np.int32)
    labels_BT = np.full((batch_size, length), pad_token, np.int32)
    mask_BT = np.zeros((batch_size, length), np.bool_)
    for row, label in enumerate(labels):
        if label is not None:
            used = slice(0, lengths[row])
            inputs_BT[row, used] = label.decoder_input_ids_T
            labels_BT[row, used] = label.labels_T
            mask_BT[row, used] = label.loss_mask_T
    return {"decoder_input_ids_BT": inputs_BT, "labels_BT": labels_BT, "loss_mask_BT": mask_BT}


def smallest_bucket(longest: int, buckets: Sequence[int]) -> int:
    """Return the first bucket that holds a label of ``longest`` tokens.

    Raises:
        ValueError: If none does.
    """
    for bucket in buckets:
        if bucket >= longest:
            return bucket
    raise ValueError(f"expected labels of at most {buckets[-1]} tokens, got {longest}: add a longer bucket")


def check_buckets(buckets: Sequence[int], *, longest: int) -> None:
    """Check that labels of every allowed length find a bucket.

    Raises:
        InputError: If the buckets do not ascend, or end below ``longest`` or above 448.
    """
    if list(buckets) != sorted(set(buckets)) or not buckets or buckets[0] < 1:
        raise InputError(f"label buckets must ascend, got {list(buckets)}")
    if not longest <= buckets[-1] <= DECODER_POSITIONS:
        raise InputError(
            f"the longest label bucket must lie between the longest label ({longest}) and "
            f"{DECODER_POSITIONS}, got {buckets[-1]}"
        )
