"""What a transcription is."""

import dataclasses

from flax_distil.core import InputError
from flax_distil.text import resolve_language


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptionOptions:
    """What to transcribe into.

    Attributes:
        language: spoken language by name or code; None detects it (multilingual models).
        task: "transcribe", or "translate" into English.
        return_timestamps: emit timestamps of segments.
        max_new_tokens: at most this many tokens per recording; None for the checkpoint's ``max_length``.

    Raises:
        InputError: if the task or the language is unknown.
    """

    language: str | None = None
    task: str = "transcribe"
    return_timestamps: bool = False
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.task not in ("transcribe", "translate"):
            raise InputError(f"task {self.task!r} is unknown: expected transcribe or translate")
        if self.language is not None:
            object.__setattr__(self, "language", resolve_language(self.language))
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens {self.max_new_tokens} is below 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcript:
    """One recording's transcription.

    Attributes:
        text: without special tokens, stripped.
        text_with_timestamps: with ``<|0.00|>`` marks, where they were asked for.
        tokens: emitted ids, without prompt and end-of-text; timestamps included.
        token_logprobs: natural logarithm of each token's probability, and of end-of-text at
            the end where it was reached.
        avg_logprob: their sum over the number of tokens plus one.
        no_speech_prob: probability that nothing is spoken, from 0 to 1.
        language: code of the language given or detected; "en" for English-only models.
    """

    text: str
    text_with_timestamps: str | None
    tokens: list[int]
    token_logprobs: list[float]
    avg_logprob: float
    no_speech_prob: float
    language: str
