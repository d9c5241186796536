"""What becomes of a recording that is transcribed."""

import dataclasses
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.transcription.results import Transcript


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a recording.

    Attributes:
        name: what it is called.
        seconds: its length; 0 if it could not be read.
        transcript: None if there is an error.
        error: one sentence; None if there is a transcript.
    """

    name: Any
    seconds: float
    transcript: Transcript | None = None
    error: InputError | None = None
