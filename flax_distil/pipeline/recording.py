"""A recording on its way through the pipeline: first its samples, then what became of it."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.transcription.results import Transcript


class LoadedAudio(NamedTuple):
    """The samples of a recording, or the reason why it cannot be read.

    Attributes:
        name: What the caller calls the recording.
        samples: Samples at 16 kHz, float32; empty if the recording cannot be read.
        error: One sentence if the recording cannot be read, otherwise None.
        channels: Number of channels that lie one behind the other in ``samples``; 0 if they were mixed.
    """

    name: Any
    samples: Float[np.ndarray, " W"]
    error: InputError | None
    channels: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptionOutcome:
    """What became of a recording.

    Attributes:
        name: What the caller calls the recording.
        seconds: Length of the recording; 0 if it could not be read.
        transcript: The transcript, or None if there is an error.
        error: One sentence, or None if there is a transcript.
    """

    name: Any
    seconds: float
    transcript: Transcript | None = None
    error: InputError | None = None
