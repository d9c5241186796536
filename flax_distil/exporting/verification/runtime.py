"""What a program that runs exports must do, so that its results can be compared with ours."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from flax_distil.core.arrays import Float

MAX_NEW_TOKENS = 220
"""Maximum number of tokens of a transcript: what whisper.cpp has room for."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A recording of at most one window, with what every program is told about it.

    Attributes:
        name: Name of the recording.
        samples_W: Its samples, 16 kHz float32, at most 30 s and not padded.
        language: Code of its language; None for an English-only model.
        prompt: Tokens in front of its transcript, from ``<|startoftranscript|>`` to ``<|notimestamps|>``.
    """

    name: str
    samples_W: Float[np.ndarray, " W"] = dataclasses.field(repr=False)
    language: str | None
    prompt: tuple[int, ...]


@runtime_checkable
class Runtime(Protocol):
    """An export that a program has loaded."""

    def transcribe(self, clip: Clip) -> str:
        """Return the text of a clip: the most likely token each time, no timestamps, one attempt.

        Tokens that the checkpoint suppresses are suppressed, and at most :data:`MAX_NEW_TOKENS` are emitted.
        """

    def logits(self, clip: Clip, tokens: Sequence[int]) -> Float[np.ndarray, "T V"] | None:
        """Return the logits behind the prompt and behind each of the given tokens.

        Args:
            clip: The clip.
            tokens: Tokens of its transcript as we found them.

        Returns:
            Row 0 follows the prompt, row i follows the first i tokens; a program may return the first rows
            only, and -inf for tokens that it suppresses. None if it does not give any.
        """


@runtime_checkable
class RuntimeModule(Protocol):
    """The module of one program; it imports the program's package only when it is asked to."""

    def open_runtime(self, folder: Path) -> Runtime:
        """Load an export.

        Args:
            folder: Folder of the export, as its format's writer left it.

        Raises:
            InputError: If this version of the program cannot run the export.
        """
