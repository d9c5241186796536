"""One row of a data set with its columns by role; its audio is still encoded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flax_distil.storage.retries import DEFAULT_POLICY, RetryPolicy


@dataclass(frozen=True, kw_only=True)
class Example:
    """One recording with its texts.

    Attributes:
        index: Row number in its data set; in a streamed one, within its shard's block.
        sample_id: Stable name.
        audio: ``{"bytes", "path"}``, either may be None; None where there is none or it was not asked for.
        reference: Reference text, None if there is none.
        label: Text to train on: the pseudo-label, or else the reference.
        speaker: Who speaks, or which recording it was cut from; None where no column tells.
        duration_seconds: None where it is not known without reading the audio.
        values: All columns but the audio.
        problem: Why the row cannot be used, as a sentence: a value has the wrong type or is impossible. None
            if nothing is wrong.
        origin: Name of the data set that the row was read from; of a streamed data set, the file.
        number: Number of the row in ``origin``, before rows were left out.
        policy: Policy for repeating failed requests for the recording.
        channel: The channel to decode, counted from 0; None for the mean of all.
    """

    index: int
    sample_id: str
    audio: Mapping[str, Any] | None
    reference: str | None
    label: str | None
    speaker: str | None
    duration_seconds: float | None
    values: Mapping[str, Any]
    problem: str | None = None
    origin: str = ""
    number: int = 0
    policy: RetryPolicy = DEFAULT_POLICY
    channel: int | None = None
