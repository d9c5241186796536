"""One row of a data set by role, its audio still encoded: what filters judge and packing joins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SpeechRow:
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
    """

    index: int
    sample_id: str
    audio: Mapping[str, Any] | None
    reference: str | None
    label: str | None
    speaker: str | None
    duration_seconds: float | None
    values: Mapping[str, Any]
