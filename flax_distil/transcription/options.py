"""What to transcribe into, and how."""

import dataclasses

from flax_distil.core import InputError
from flax_distil.generation import SearchOptions
from flax_distil.text import resolve_language

FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""What OpenAI's code tries one after the other."""

GREEDY = SearchOptions()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptionOptions:
    """What to transcribe into, and how.

    Attributes:
        language: spoken language by name or code; None detects it (multilingual models).
        task: "transcribe", or "translate" into English.
        return_timestamps: emit timestamps of segments.
        word_timestamps: find the time of every word too.
        max_new_tokens: at most this many tokens per window; None for the checkpoint's ``max_length``.
        search: beams, and what is drawn from at a temperature.
        temperature: tried in turn while a window fails a threshold below; 0 is no draw.
        seed: what draws depend on.
        compression_ratio_threshold: a window whose ids compress better fails (1.35 is usual); None: no test.
        text_compression_ratio_threshold: the same of its text (2.4 is usual).
        logprob_threshold: a window whose average log-probability is lower fails (-1.0 is usual).
        no_speech_threshold: a window where this probability is exceeded and the average log-probability is
            below its threshold is silence (0.6 is usual): its text is dropped, and it does not fail.
        prompt: text that might have come before, whose spelling and style is followed.
        prompt_ids: the same as ids, without ``<|startofprev|>``.
        prefix: how the transcript of a first window begins; it is not part of the result.
        condition_on_prev_tokens: long recordings: prompt a window with the text of those before it.

    Raises:
        InputError: if a value is unknown or out of range.

    Source: RECIPE 6.
    """

    language: str | None = None
    task: str = "transcribe"
    return_timestamps: bool = False
    word_timestamps: bool = False
    max_new_tokens: int | None = None
    search: SearchOptions = GREEDY
    temperature: tuple[float, ...] = (0.0,)
    seed: int = 0
    compression_ratio_threshold: float | None = None
    text_compression_ratio_threshold: float | None = None
    logprob_threshold: float | None = None
    no_speech_threshold: float | None = None
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    prefix: str | None = None
    condition_on_prev_tokens: bool = False

    def __post_init__(self) -> None:
        if self.task not in ("transcribe", "translate"):
            raise InputError(f"task {self.task!r} is unknown: expected transcribe or translate")
        if self.language is not None:
            object.__setattr__(self, "language", resolve_language(self.language))
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens {self.max_new_tokens} is below 1")
        if not self.temperature:
            raise InputError("temperature is empty: give at least one, such as 0")
        for value in self.temperature:
            if not 0 <= value < float("inf"):
                raise InputError(f"temperature {value:g} is not a number of at least 0")
        for name, neutral in (("best_of", 1), ("top_k", None), ("top_p", None)):
            value = getattr(self.search, name)
            if value != neutral and not any(self.temperature):
                raise InputError(f"{name} {value:g} is given, but nothing is drawn at temperature 0")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"seed {self.seed} is not between 0 and {2**31 - 1}")
        if self.no_speech_threshold is not None and not 0 <= self.no_speech_threshold <= 1:
            raise InputError(f"no_speech_threshold {self.no_speech_threshold:g} is not between 0 and 1")
        if self.logprob_threshold is not None and self.logprob_threshold > 0:
            raise InputError(
                f"logprob_threshold {self.logprob_threshold:g} is above 0: no probability is above 1"
            )
        if self.prompt is not None and self.prompt_ids is not None:
            raise InputError("prompt and prompt_ids are both given: choose one")
