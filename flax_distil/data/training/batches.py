"""Collate samples of any length into arrays with few different shapes, so that compiled steps are reused."""

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
    "decoder_input_ids_BT", "labels_BT", "loss_mask_BT", "kl_weight_B", "samples_BW", "lengths_B", "seed_B",
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
    """One batch, on the host or on devices.

    As a pytree of JAX it has only the arrays that a step takes; the fields about the origin of its rows stay
    on the host. Their ``PartitionSpec`` is ``ROWS`` of ``parallel/partitioner.py`` for all of them, or
    ``MICRO_BATCHES`` after :meth:`in_micro_batches`. A field that a batch lacks is None.

    Attributes:
        decoder_input_ids_BT: int32, tokens that the decoder reads; T is a bucket of lengths.
        labels_BT: int32, the same tokens one position on.
        loss_mask_BT: Bool, which labels count in the loss.
        kl_weight_B: float32, factor of the KL term for the labels of each row, in training only.
        samples_BW: float32 or int16, audio at 16 kHz with zeros after each recording.
        lengths_B: int32, number of audio samples of each recording, where devices augment it.
        seed_B: uint32, seed of the augmentation on devices.
        encoder_out_BSD: Outputs of a frozen encoder, instead of samples.
        mel_BRM: float32, log-mel frames for the student.
        teacher_mel_BRM: float32, log-mel frames for the teacher, where its window is longer.
        ids: Stable names of the samples; ``""`` for padding.
        index_B: int64, row number in the data set; -1 for padding. Clips without speech are counted behind
            the last row.
        valid_B: Bool, False for padding.
        has_audio_B: Bool, False for padding, and where audio was not asked for.
        duration_B: float32, duration in seconds.
        source_B: int32, number of the data set, in training only.
        epoch: Number of complete passes over the data set of the first sample, in training only.
        references: Whole reference texts, in evaluation only; ``""`` where there is none.
    """

    decoder_input_ids_BT: Any = None
    labels_BT: Any = None
    loss_mask_BT: Any = None
    kl_weight_B: Any = None
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
"""Target lengths to which batches are padded; each of them needs one compilation."""


@dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """One sample with its label.

    Attributes:
        sample: Audio and texts.
        label: Tokens of the label; None if the sample has no usable label (in evaluation only).
        source: Number of the data set of the sample.
        epoch: Number of complete passes over the data set when the sample was drawn.
        is_usable: False where the sample cannot be used; it then becomes a row of padding.
    """

    sample: DecodedExample
    label: LabelTokens | None
    source: int = 0
    epoch: int = 0
    is_usable: bool = True

    @property
    def is_speech(self) -> bool:
        """Whether the sample is one of its data set, and not a clip in which nobody speaks."""
        return self.label is None or self.label.no_speech is None

    @classmethod
    def unusable(cls, *, source: int, epoch: int) -> "TokenizedExample":
        """Return what stands for a sample that cannot be used, with neither audio nor label."""
        nothing = DecodedExample(
            index=-1, sample_id="", samples_W=None, duration_seconds=0.0, reference=None, label=None
        )
        return cls(sample=nothing, label=None, source=source, epoch=epoch, is_usable=False)


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
    """Collate samples into one batch.

    Args:
        samples: At most ``batch_size`` samples; if there are none, the whole batch is padding.
        batch_size: Number of rows of the batch; missing rows are padding.
        pad_token: Token id that fills inputs and targets after each label.
        buckets: Target lengths in ascending order; None leaves labels out.
        always_audio: Whether to include ``samples_BW`` even if no row has audio, so that all batches have the
            same form.
        audio_dtype: Type of ``samples_BW``: float32, or int16 for half the memory and transfer.
        window_samples: Number W of audio samples of a window of the encoder; 480,000 by default.

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
        valid_B=np.array([item.is_usable for item in samples] + [False] * missing, np.bool_),
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
    """Put recordings of at most one window into rows of one window.

    Args:
        samples: Recordings, mono at 16 kHz; None gives a row of silence.
        batch_size: Number of rows; rows after the last recording are silence.
        dtype: float32, or int16: full scale becomes 32768, so 16-bit recordings of 16 kHz stay as they are.
        window_samples: Number of audio samples of a row; 30 s by default.

    Returns:
        An array ``[batch_size, window_samples]``.
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
        labels: One label per sample; None becomes a row whose targets do not count.
        batch_size: Number of rows.
        pad_token: Token id that fills each row after its label.
        buckets: Target lengths in ascending order.

    Returns:
        The arrays ``decoder_input_ids_BT``, ``labels_BT`` and ``loss_mask_BT`` by name.

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
    """Return the smallest bucket that holds a label of ``longest`` tokens.

    Raises:
        ValueError: If no bucket does.
    """
    for bucket in buckets:
        if bucket >= longest:
            return bucket
    raise ValueError(f"expected labels of at most {buckets[-1]} tokens, got {longest}: add a longer bucket")


def check_buckets(buckets: Sequence[int], *, longest: int) -> None:
    """Check that there is a bucket for labels of every allowed length.

    Raises:
        InputError: If the buckets are not in ascending order, or the last one is below ``longest`` or above
            448.
    """
    if list(buckets) != sorted(set(buckets)) or not buckets or buckets[0] < 1:
        raise InputError(f"label buckets must ascend, got {list(buckets)}")
    if not longest <= buckets[-1] <= DECODER_POSITIONS:
        raise InputError(
            f"the longest label bucket must lie between the longest label ({longest}) and "
            f"{DECODER_POSITIONS}, got {buckets[-1]}"
        )
