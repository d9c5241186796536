"""What to transcribe into, and how."""

import dataclasses
import functools
import itertools
import math
import typing
from collections.abc import Iterable

from flax_distil.audio.voice_activity import VadName, VadOptions
from flax_distil.core.errors import InputError
from flax_distil.decoding.options import SearchOptions
from flax_distil.text.generation_settings import TASKS, GenerationSettings
from flax_distil.text.languages import DETECT_LANGUAGE, language_code
from flax_distil.text.timestamps import LAST_TIMESTAMP_SECONDS

ModeName = typing.Literal["short", "chunked", "sequential"]
"""How recordings become windows: one window each, chunks, or window after window."""

MergingName = typing.Literal["timestamps", "longest_common_sequence"]
"""How chunks become one transcript: by the timestamps in them, or by shared tokens as in transformers."""

OFF = "off"
"""The value of a threshold that switches its test off where there is one by default."""

Threshold = float | str | None
"""A number, :data:`OFF`, or None for the default: none in one window, the usual one in long recordings."""

CHECKPOINT_TOKENS = -1
"""Stands for the checkpoint's own list in ``suppress_tokens``."""

_LEAST_RATIO_OF_TEXT = 1.5
"""No threshold of text is as low: ordinary sentences reach it. Those of ids are."""

FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""What OpenAI's code tries one after the other."""

GREEDY = SearchOptions()

USUAL_VAD = VadOptions()

PREPEND_PUNCTUATIONS = "\"'“¿([{-"
APPEND_PUNCTUATIONS = "\"'.。,，!！?？:：”)]}、"
"""What OpenAI's code joins to the next word, and to the last one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptionOptions:
    """What to transcribe into, and how.

    Attributes:
        language: spoken language by name or code, of Whisper's or of the checkpoint's own; "auto" detects it.
            None is the checkpoint's default, which detects it in most multilingual ones.
        multilingual: detect the language of every window, not only of the first.
        task: "transcribe", or "translate" into English; None is the checkpoint's default, or "transcribe".
        return_timestamps: emit timestamps of segments.
        word_timestamps: find the time of every word too.
        max_new_tokens: at most this many tokens per window; None for the checkpoint's ``max_length``.
        search: beams, and what is drawn from at a temperature.
        temperature: tried in turn while a window fails a threshold below; 0 is no draw.
        seed: what draws depend on.
        compression_ratio_threshold: a window whose text compresses better fails (2.4 is usual).
        token_compression_ratio_threshold: the same of its ids, as transformers measures it (1.35 is usual).
        logprob_threshold: a window whose average log-probability is lower fails (-1.0 is usual).
        no_speech_threshold: a window where this probability is exceeded and the average log-probability is
            below its threshold is silence (0.6 is usual): its text is dropped, and it does not fail.
        prompt: text that might have come before, whose spelling and style is followed.
        prompt_ids: the same as ids, without ``<|startofprev|>``.
        carry_initial_prompt: long recordings: prompt every window with ``prompt``, not only the first.
        hotwords: names and terms that every window is prompted with; a window with the prefix is not.
        prefix: how the transcript begins; it is part of the result, with log-probabilities of 0.
        repetition_penalty: what logits of tokens that a window has are divided by (negative ones multiplied);
            1 is none, above 1 discourages.
        no_repeat_ngram_size: no window has a run of so many tokens twice; 0 allows it.
        suppress_tokens: ids that are never emitted; -1 among them is the checkpoint's list, and None that
            list alone. Tokens that no transcript holds, such as ``<|startoftranscript|>``, always are.
        max_initial_timestamp: seconds, the latest first timestamp of a window; None for the checkpoint's.
        condition_on_prev_tokens: long recordings: prompt a window with the text of those before it.
        vad: how speech is found; what is none is left out. None leaves all in.
        vad_parameters: what counts as speech.
        prepend_punctuations: marks that belong to the word behind them, where words are found.
        append_punctuations: marks that belong to the word before them.
        clip_timestamps: sequential: what is transcribed of a recording: start, end, start, end … in seconds;
            the last end is that of the recording if it is left out. Empty for all of it.
        hallucination_silence_threshold: with words: seconds; a silence that is longer is skipped where words
            beside it are improbable, too short or too long, and those words are left out.

    A threshold that is "off" is not tested, even in long recordings, where None is the usual value.

    Raises:
        InputError: if a value is unknown or out of range.

    Source: openai/whisper, ``DecodingOptions`` and ``transcribe``; faster-whisper, ``transcribe``.
    """

    language: str | None = None
    multilingual: bool = False
    task: str | None = None
    return_timestamps: bool = False
    word_timestamps: bool = False
    max_new_tokens: int | None = None
    search: SearchOptions = GREEDY
    temperature: tuple[float, ...] = (0.0,)
    seed: int = 0
    compression_ratio_threshold: Threshold = None
    token_compression_ratio_threshold: Threshold = None
    logprob_threshold: Threshold = None
    no_speech_threshold: Threshold = None
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    carry_initial_prompt: bool = False
    hotwords: str | None = None
    prefix: str | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    suppress_tokens: tuple[int, ...] | None = None
    max_initial_timestamp: float | None = None
    condition_on_prev_tokens: bool = False
    vad: str | None = None
    vad_parameters: VadOptions = USUAL_VAD
    prepend_punctuations: str = PREPEND_PUNCTUATIONS
    append_punctuations: str = APPEND_PUNCTUATIONS
    clip_timestamps: tuple[float, ...] = ()
    hallucination_silence_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in TASKS:
            raise InputError(f"task {self.task!r} is unknown: expected {' or '.join(TASKS)}")
        if self.language is not None:
            detects = self.language.strip().lower() == DETECT_LANGUAGE
            code = DETECT_LANGUAGE if detects else language_code(self.language)
            object.__setattr__(self, "language", code)
        if self.multilingual and self.language not in (None, DETECT_LANGUAGE):
            raise InputError(
                f"multilingual detects the language of every window, and language {self.language!r} names "
                "one: leave out either of them"
            )
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens {self.max_new_tokens} is below 1")
        if self.prompt is not None and self.prompt_ids is not None:
            raise InputError("prompt and prompt_ids are both given: choose one")
        if self.vad is not None and self.vad not in typing.get_args(VadName):
            expected = ", ".join(typing.get_args(VadName))
            raise InputError(f"vad {self.vad!r} is unknown: expected one of {expected}")
        if self.vad is None and self.vad_parameters != USUAL_VAD:
            raise InputError("vad_parameters say what speech is, and nothing looks for it: give vad too")
        self._check_draws()
        self._check_clips()
        self._check_thresholds()
        self._check_rules()

    def _check_draws(self) -> None:
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

    def _check_clips(self) -> None:
        times = self.clip_timestamps
        if not all(0 <= time < math.inf for time in times) or any(
            end <= start if number % 2 == 0 else end < start
            for number, (start, end) in enumerate(itertools.pairwise(times))
        ):
            raise InputError(
                f"clip_timestamps {','.join(f'{time:g}' for time in times)} are not start,end,start,end… in "
                "seconds: each must be later than the one before it"
            )
        if times and self.vad is not None:
            raise InputError(
                "clip_timestamps and vad both choose what is heard of a recording: leave out either"
            )
        silence = self.hallucination_silence_threshold
        if silence is not None and not 0 <= silence < math.inf:
            raise InputError(f"hallucination_silence_threshold {silence:g} is not a number of at least 0")
        if silence is not None and not self.word_timestamps:
            raise InputError(
                "hallucination_silence_threshold is about words, whose times are not known: ask for word "
                "timestamps, or leave it out"
            )

    def _check_thresholds(self) -> None:
        for name in Thresholds._fields:
            value = getattr(self, f"{name}_threshold")
            if isinstance(value, str) and value != OFF:
                raise InputError(f"{name}_threshold {value!r} is neither a number nor {OFF!r}")
        ratio, _, logprob, no_speech = self.thresholds
        if no_speech is not None and not 0 <= no_speech <= 1:
            raise InputError(f"no_speech_threshold {no_speech:g} is not between 0 and 1")
        if logprob is not None and not logprob <= 0:
            raise InputError(f"logprob_threshold {logprob:g} is above 0: no probability is above 1")
        if ratio is not None and not ratio > _LEAST_RATIO_OF_TEXT:
            raise InputError(
                f"compression_ratio_threshold {ratio:g} is too low for text, of which ordinary sentences "
                f"reach {_LEAST_RATIO_OF_TEXT:g}: give one such as 2.4, or, if ids of tokens were meant, "
                f"token_compression_ratio_threshold {ratio:g}"
            )

    def _check_rules(self) -> None:
        if not 0 < self.repetition_penalty < math.inf:
            raise InputError(f"repetition_penalty {self.repetition_penalty:g} is not a number above 0")
        if self.no_repeat_ngram_size < 0:
            raise InputError(f"no_repeat_ngram_size {self.no_repeat_ngram_size} is below 0")
        latest = self.max_initial_timestamp
        if latest is not None and not 0 <= latest <= LAST_TIMESTAMP_SECONDS:
            raise InputError(
                f"max_initial_timestamp {latest:g} is not between 0 and {LAST_TIMESTAMP_SECONDS:g} seconds"
            )

    @functools.cached_property
    def thresholds(self) -> "Thresholds":
        """The thresholds that are tested."""
        given = (getattr(self, f"{name}_threshold") for name in Thresholds._fields)
        return Thresholds(*(None if isinstance(value, str) else value for value in given))

    @property
    def punctuations(self) -> tuple[str, str]:
        """Marks that belong to the word behind them, and those that belong to the one before."""
        return self.prepend_punctuations, self.append_punctuations

    def for_checkpoint(self, settings: GenerationSettings) -> "TranscriptionOptions":
        """Return the options with the language and the task that a checkpoint takes by default.

        The language is None where it is to be detected, and the task is never None.
        """
        language = None if self.multilingual else self.language or settings.language
        return dataclasses.replace(
            self,
            language=None if language == DETECT_LANGUAGE else language,
            task=self.task or settings.task or "transcribe",
        )


class Thresholds(typing.NamedTuple):
    """What a window fails at; None where it is not tested. See :class:`TranscriptionOptions`."""

    compression_ratio: float | None
    token_compression_ratio: float | None
    logprob: float | None
    no_speech: float | None


def clip_times(given: str | Iterable[typing.Any]) -> tuple[float, ...]:
    """Return the times of clips, written with commas between them (``"0,9.5,20"``) or given as numbers.

    Raises:
        InputError: if one is no number.
    """
    times = [part for part in given.split(",") if part.strip()] if isinstance(given, str) else given
    try:
        return tuple(float(time) for time in times)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"clip_timestamps {given!r} are not start,end,start,end… in seconds, such as 0,9.5,20,30"
        ) from error


def long_form_defaults(
    options: TranscriptionOptions, *, keep_temperature: bool = False
) -> TranscriptionOptions:
    """Return options for sequential transcription: timestamps, and the usual thresholds where none is given.

    1.35 for the compression of ids (unless that of text has a threshold or is "off"), -1 for the average
    log-probability, 0.6 for silence, and temperatures from 0 to 1 in steps of 0.2.

    Args:
        options: what else to do.
        keep_temperature: leave temperature 0 alone, which counts as not given otherwise.

    Source: RECIPE 6.
    """
    usual: dict[str, typing.Any] = {"logprob_threshold": -1.0, "no_speech_threshold": 0.6}
    if options.compression_ratio_threshold is None:
        usual["token_compression_ratio_threshold"] = 1.35
    changed = {name: value for name, value in usual.items() if getattr(options, name) is None}
    if options.temperature == (0.0,) and not keep_temperature:
        changed["temperature"] = FALLBACK_TEMPERATURES
    return dataclasses.replace(options, return_timestamps=True, **changed)
