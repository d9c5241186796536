"""What to transcribe into, and how."""

import dataclasses
import functools
import itertools
import math
import typing
from collections.abc import Iterable

from flax_distil.audio.vad_config import VadName, VadOptions
from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested, setting
from flax_distil.decoding.options import SearchOptions
from flax_distil.text.config import LanguageConfig
from flax_distil.text.generation_settings import TASKS, GenerationSettings
from flax_distil.text.languages import DETECT_LANGUAGE, language_code
from flax_distil.text.timestamps import LAST_TIMESTAMP_SECONDS

ModeName = typing.Literal["short", "chunked", "sequential", "vad"]
"""How recordings become windows: one each, chunks that overlap, window after window, or packed speech."""

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

PREPEND_PUNCTUATIONS = "\"'“¿([{-"
APPEND_PUNCTUATIONS = "\"'.。,，!！?？:：”)]}、"
"""What OpenAI's code joins to the next word, and to the last one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptionOptions(LanguageConfig):
    """Transcription options.

    A threshold that is "off" is not tested, even in long recordings, where None is the usual value.

    Attributes:
        language: Language of the speech, by a name or code that Whisper or the checkpoint has; auto
            detects it. By default the language that the checkpoint stores; most multilingual checkpoints
            store none, and the language is detected.
        multilingual: Detect the language of every window, not only of the first.
        task: transcribe, or translate into English. By default the task that the checkpoint stores, otherwise
            transcribe.
        return_timestamps: Add the timestamps of segments.
        word_timestamps: Add the timestamps of words. This switches return_timestamps on.
        max_new_tokens: Maximum number of tokens per window of 30 s. By default the max_length of the
            checkpoint.
        search: Beam search, and sampling at a temperature.
        temperature: Temperatures that are tried in turn while a window fails a threshold. At 0 the most
            likely tokens are taken. By default 0, and for long recordings 0 to 1 in steps of 0.2.
        seed: Seed of the random numbers at temperatures above 0.
        compression_ratio_threshold: A window fails if the compression ratio of its text is higher; 2.4 is a
            common value; off turns this test off.
        token_compression_ratio_threshold: A window fails if the compression ratio of its token ids is higher,
            as transformers measures it; 1.35 is a common value; off turns this test off.
        logprob_threshold: A window fails if its average log-probability is lower; -1 is a common value; off
            turns this test off.
        no_speech_threshold: A window is silent, and does not fail, if the probability of silence is higher
            and its average log-probability is below logprob_threshold; 0.6 is a common value; off turns this
            test off.
        prompt: Text that might precede the speech. The transcript follows its spelling and style.
        prompt_ids: The same as token ids, without ``<|startofprev|>``.
        carry_initial_prompt: Start every window of a long recording with the prompt, not only the first.
        hotwords: Names and terms that every window is prompted with, except one that starts with the prefix.
        prefix: Text that every transcript starts with. It is part of the result, with log-probabilities of 0.
        repetition_penalty: Divide the logits of tokens that the window already has by this number, or
            multiply them if they are negative; 1 changes nothing.
        no_repeat_ngram_size: No sequence of this many tokens occurs twice in a window; 0 allows repetitions.
        suppress_tokens: Ids of tokens that are never generated; -1 stands for the list of the checkpoint,
            which is the default. Special tokens such as <|startoftranscript|> are always suppressed.
        begin_suppress_tokens: Ids of tokens that are not generated as the first one of a window. By default
            the list of the checkpoint.
        max_initial_timestamp: Latest possible first timestamp of a window, in seconds. By default what the
            checkpoint says.
        condition_on_prev_tokens: Prompt each window with the text before it, in mode sequential.
        vad: Leave out what is not speech: auto (also the meaning of the flag alone), silero or energy. By
            default everything is transcribed.
        vad_parameters: What counts as speech.
        prepend_punctuations: Punctuation marks that belong to the word after them, with word_timestamps.
        append_punctuations: Punctuation marks that belong to the word before them, with word_timestamps.
        clip_timestamps: Transcribe only these stretches, in mode sequential: start,end,start,end,... in
            seconds. The last end may be left out.
        hallucination_silence_threshold: With word_timestamps, skip silences that are longer than this many
            seconds and lie beside improbable, too short or too long words, and leave out those words.

    Raises:
        InputError: If a value is unknown or out of range.

    Source: openai/whisper, ``DecodingOptions`` and ``transcribe``; faster-whisper, ``transcribe``.
    """

    multilingual: bool = False
    return_timestamps: bool = False
    word_timestamps: bool = False
    max_new_tokens: int | None = None
    search: SearchOptions = nested(SearchOptions())
    temperature: tuple[float, ...] | None = None
    seed: int = 0
    compression_ratio_threshold: Threshold = None
    token_compression_ratio_threshold: Threshold = None
    logprob_threshold: Threshold = None
    no_speech_threshold: Threshold = None
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = setting(None, hidden=True)
    carry_initial_prompt: bool = False
    hotwords: str | None = None
    prefix: str | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    suppress_tokens: tuple[int, ...] | None = None
    begin_suppress_tokens: tuple[int, ...] | None = setting(None, hidden=True)
    max_initial_timestamp: float | None = None
    condition_on_prev_tokens: bool = False
    vad: str | None = setting(None, switch="auto")
    vad_parameters: VadOptions = nested(
        VadOptions(),
        rename={field.name: f"vad_{field.name}" for field in dataclasses.fields(VadOptions)},
        types=dict.fromkeys(("min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"), float)
        | {"max_speech_duration_s": float | None},
    )
    prepend_punctuations: str = PREPEND_PUNCTUATIONS
    append_punctuations: str = APPEND_PUNCTUATIONS
    clip_timestamps: str | tuple[float, ...] | None = None
    hallucination_silence_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in TASKS:
            raise InputError(f"task {self.task!r} is unknown: expected {' or '.join(TASKS)}")
        code = self.language_code
        if self.multilingual and code not in (None, DETECT_LANGUAGE):
            raise InputError(
                f"multilingual detects the language of every window, and language {self.language!r} names "
                "one: leave out either of them"
            )
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise InputError(f"generation_max_length (max_new_tokens) {self.max_new_tokens} is below 1")
        if self.prompt is not None and self.prompt_ids is not None:
            raise InputError("prompt and prompt_ids are both given: choose one")
        if self.vad is not None and self.vad not in typing.get_args(VadName):
            expected = ", ".join(typing.get_args(VadName))
            raise InputError(f"vad {self.vad!r} is unknown: expected one of {expected}")
        if self.vad is None and self.vad_parameters != VadOptions():
            raise InputError("vad_parameters say what speech is, and nothing looks for it: give vad too")
        self._check_draws()
        self._check_clips()
        self._check_thresholds()
        self._check_rules()

    def _check_draws(self) -> None:
        if not self.temperatures:
            raise InputError("temperature is empty: give at least one, such as 0")
        for value in self.temperatures:
            if not 0 <= value < float("inf"):
                raise InputError(f"temperature {value:g} is not a number of at least 0")
        for name, neutral in (("best_of", 1), ("top_k", None), ("top_p", None)):
            value = getattr(self.search, name)
            if value != neutral and not any(self.temperatures):
                raise InputError(f"{name} {value:g} is given, but nothing is drawn at temperature 0")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"seed {self.seed} is not between 0 and {2**31 - 1}")

    def _check_clips(self) -> None:
        times = self.clips
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

    @property
    def language_code(self) -> str | None:
        """The code of the language, "auto" to detect it, or None for the checkpoint's default."""
        if self.language is None or self.language.strip().lower() == DETECT_LANGUAGE:
            return self.language and DETECT_LANGUAGE
        return language_code(self.language)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures that are tried in turn."""
        return (0.0,) if self.temperature is None else self.temperature

    @property
    def clips(self) -> tuple[float, ...]:
        """The times of ``clip_timestamps``; empty for the whole recording."""
        return clip_times(self.clip_timestamps or ())

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
        language = None if self.multilingual else self.language_code or settings.language
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
        InputError: If one is no number.
    """
    times = [part for part in given.split(",") if part.strip()] if isinstance(given, str) else given
    try:
        return tuple(float(time) for time in times)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"clip_timestamps {given!r} are not start,end,start,end… in seconds, such as 0,9.5,20,30"
        ) from error


def long_form_defaults(options: TranscriptionOptions, *, timestamps: bool = True) -> TranscriptionOptions:
    """Return options for long recordings: the usual values of what is not given.

    These are 1.35 for the compression ratio of token ids (unless that of text has a threshold or is "off"),
    -1 for the average log-probability, 0.6 for silence, and temperatures from 0 to 1 in steps of 0.2.

    Args:
        options: What is given.
        timestamps: Switch timestamps on, with which sequential transcription finds the next window.

    Source: openai/whisper, ``transcribe``; transformers, ``WhisperGenerationMixin.generate``.
    """
    usual: dict[str, typing.Any] = {"logprob_threshold": -1.0, "no_speech_threshold": 0.6}
    if options.compression_ratio_threshold is None:
        usual["token_compression_ratio_threshold"] = 1.35
    changed = {name: value for name, value in usual.items() if getattr(options, name) is None}
    if options.temperature is None:
        changed["temperature"] = FALLBACK_TEMPERATURES
    if timestamps:
        changed["return_timestamps"] = True
    return dataclasses.replace(options, **changed)
