"""Make decoder inputs, targets and the loss mask from a text.

Inputs and targets are one sequence of tokens, shifted by one; ``x`` marks targets without a loss::

    tokens   sop  previous text  sot  en  transcribe  notimestamps  text text  eot
    inputs   sop  previous text  sot  en  transcribe  notimestamps  text text
    targets       previous text  sot  en  transcribe  notimestamps  text text  eot
    loss          x  x  x  x  x   x   1       1            1          1   1     1

Tokens up to and including ``<|startoftranscript|>`` are given and not learned; language, task, timestamps,
text and the end are learned.
"""

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from flax_distil.core.arrays import Bool, Int
from flax_distil.data.decoded_example import LABEL_TOO_LONG, NO_LABEL, SampleError, TextPart
from flax_distil.data.preprocessing.config import DECODER_POSITIONS, LabelConfig
from flax_distil.text.languages import LANGUAGES_WITHOUT_SPACES, language_code
from flax_distil.text.timestamps import (
    LAST_TIMESTAMP_SECONDS,
    round_timestamps,
    strip_timestamp_text,
    strip_timestamps,
    timestamp_token,
)
from flax_distil.text.tokenizer import WhisperTokenizer

SPECIAL_MARK = re.compile(r"<\|(?!\d+\.\d+\|>)[\w.-]*\|>")
"""Pattern of special tokens that are written out in a pseudo-label, except for timestamps."""

TEXT_START = re.compile(r"^((?:<\|\d+\.\d+\|>)*+)(?=\S)")
"""Pattern of the beginning of a text whose first word, after its timestamps, does not follow a space."""

TIMESTAMP_MARK = re.compile(r"<\|(\d+\.\d+)\|>")

COARSE_TIMESTAMP_SECONDS = 0.1

BAD_PREVIOUS = "with an impossible text before"

BAD_TIMESTAMPS = "with impossible timestamps"

TIMESTAMP_SLACK_SECONDS = 1.0
"""Tolerance for timestamps after the end of a recording, where a teacher may put the end of speech."""


Previous = tuple[str | int, ...]
"""Text before a sample: as texts, or as token ids of the model's vocabulary."""


@dataclass(frozen=True, kw_only=True)
class LabelTokens:
    """The tokens of the label of one sample, without padding.

    Attributes:
        tokens: Tokens from the prompt to ``<|endoftext|>`` as int32, one more than there are inputs.
        given: Number of leading tokens, up to ``<|startoftranscript|>``, that are not learned.
    """

    tokens: Int[np.ndarray, " P"]
    given: int

    @property
    def decoder_input_ids_T(self) -> Int[np.ndarray, " T"]:
        """Inputs of the decoder: all tokens except the last."""
        return self.tokens[:-1]

    @property
    def labels_T(self) -> Int[np.ndarray, " T"]:
        """Targets of the decoder: all tokens except the first."""
        return self.tokens[1:]

    @property
    def loss_mask_T(self) -> Bool[np.ndarray, " T"]:
        """Which of :attr:`labels_T` count in the loss."""
        return np.arange(1, len(self.tokens)) >= self.given


class LabelBuilder:
    """Makes labels of texts; it has no state, so every thread may use it.

    Args:
        tokenizer: The model's tokenizer.
        config: Configuration of the labels.

    Raises:
        InputError: If the model does not know the language or the task.
    """

    def __init__(self, tokenizer: WhisperTokenizer, config: LabelConfig):
        self._tokenizer = tokenizer
        self._config, self._task = config, config.task or "transcribe"
        # This fails, before any work, if language or task are wrong.
        tokenizer.prompt(config.language, self._task, False)
        # Translations are always English.
        spoken = config.language if self._task == "transcribe" else None
        code = language_code(spoken) if spoken else "en"
        self._opening = "" if code in LANGUAGES_WITHOUT_SPACES else " "

    def fingerprint(self) -> str:
        """Return a text that changes whenever labels may change: the settings and the vocabulary."""
        return f"{self._config!r} {self._tokenizer.fingerprint()}"

    @property
    def pad_token(self) -> int:
        """Id for padding after the end of a label; it is masked, and valid as an index."""
        return self._tokenizer.special.eot

    @property
    def uses_previous(self) -> bool:
        """Whether a label may have a prompt with the text before it."""
        return self._config.condition_on_prev_probability > 0

    @property
    def max_label_length(self) -> int:
        """Maximum number of tokens of a label, without the previous text."""
        return self._config.max_label_length

    def text_tokens(self, text: str) -> list[int]:
        """Return the tokens of a text with its timestamps, without prompt and end.

        Special tokens that are written out in a pseudo-label are removed, because the prompt is built again.
        Where the language has spaces, a text starts with one, as Whisper's own transcripts do.
        """
        return self._round_timestamps(self._encode(text))

    def length(self, text: str) -> int:
        """Return the number of tokens that ``max_label_length`` limits, which includes timestamps."""
        tokens = self.text_tokens(text)
        timed = self._has_timestamps(tokens)
        return len(self._tokenizer.prompt(self._config.language, self._task, timed)) + len(tokens)

    def part_length(self, text: str) -> int:
        """Return the maximum number of tokens of a text in a joined sample, with timestamps around it."""
        tokens = self._encode(text)
        special = self._tokenizer.special
        return len(tokens) + sum(not special.is_timestamp(token) for token in (tokens[:1] + tokens[-1:]))

    @property
    def max_parts_length(self) -> int:
        """Maximum number of tokens of all parts together, counted by :meth:`part_length`."""
        return self.max_label_length - len(self._tokenizer.prompt(self._config.language, self._task, False))

    def longest(self, texts: Iterable[str | None]) -> int:
        """Return the tokens of the longest usable label, without previous text; 0 if there is none."""
        lengths = (self.length(text) for text in texts if text is not None)
        return max((length for length in lengths if length <= self.max_label_length), default=0)

    def build(
        self,
        text: str | None,
        *,
        previous: Previous = (),
        random: np.random.Generator,
        speed: float = 1.0,
        seconds: float | None = None,
    ) -> LabelTokens:
        """Make the label of one sample.

        Args:
            text: Text of the sample, with or without timestamps.
            previous: Text of the same speaker before the sample.
            random: Random numbers that decide on timestamps and prompt; see :func:`sample_random`.
            speed: Factor by which the recording is faster than when it was labelled.
            seconds: Length of the recording when it was labelled, which timestamps must not exceed; None does
                not check.

        Returns:
            The tokens. The beginning of a previous text that does not fit beside the label is left out.

        Raises:
            SampleError: If there is no text, it is too long, its timestamps go backwards or beyond the end,
                or the previous text has an unknown id.
        """
        if text is None:
            raise SampleError(NO_LABEL, "the row has no text to learn")
        check_timestamps(text, seconds)
        return self._build(
            self._round_timestamps(self._rescale_timestamps(self._encode(text), speed)), previous, random
        )

    def build_joined(
        self,
        parts: Sequence[TextPart],
        *,
        previous: Previous = (),
        random: np.random.Generator,
        speed: float = 1.0,
    ) -> LabelTokens:
        """Make the label of recordings that were joined into one sample.

        The tokens of the parts are concatenated, and their timestamps are moved to the positions of their
            recordings. If any part has timestamps, all parts get them: a text that does not begin or end with
            a timestamp gets the start or end of its recording.

        Args:
            parts: The parts in order of time.
            previous: Text of the same speaker before the sample.
            random: Random numbers, as for :meth:`build`.
            speed: Speed of the recordings, as for :meth:`build`.

        Raises:
            SampleError: If a part has no text or impossible timestamps, or the parts are too long together.
        """
        encoded = []
        for part in parts:
            if part.text is None:
                raise SampleError(NO_LABEL, "one of its recordings has no text to learn")
            check_timestamps(part.text, None)  # times after its end were checked with its row
            encoded.append(self._encode(part.text))
        if any(self._has_timestamps(tokens) for tokens in encoded):
            encoded = [
                self._move_timestamps(tokens, part) for tokens, part in zip(encoded, parts, strict=True)
            ]
        joined = [token for tokens in encoded for token in tokens]
        return self._build(self._round_timestamps(self._rescale_timestamps(joined, speed)), previous, random)

    def _build(self, tokens: list[int], previous: Previous, random: np.random.Generator) -> LabelTokens:
        self._check_previous(previous)
        timed = self._has_timestamps(tokens)
        prompt = self._tokenizer.prompt(self._config.language, self._task, timed)
        length, limit = len(prompt) + len(tokens), self._config.max_label_length
        # Lengths include timestamps even if they are dropped now, so that a row is always or never used.
        if length > limit:
            raise SampleError(LABEL_TOO_LONG, f"its label has {length} tokens: at most {limit} are taken")
        keep_timestamps, use_previous = random.random(2) < (
            self._config.timestamp_probability,
            self._config.condition_on_prev_probability,
        )
        if timed and not keep_timestamps:
            tokens = strip_timestamps(tokens, self._tokenizer.special)
            prompt = self._tokenizer.prompt(self._config.language, self._task, False)
        if previous and use_previous:
            prompt = self._prompt_with_previous(previous, timed and bool(keep_timestamps), len(tokens))
        given = prompt.index(self._tokenizer.special.sot) + 1
        sequence = np.array([*prompt, *tokens, self._tokenizer.special.eot], np.int32)
        return LabelTokens(tokens=sequence, given=given)

    def _check_previous(self, previous: Previous) -> None:
        """Raise :class:`SampleError` for unknown ids, whether or not the previous text is used now."""
        size = self._tokenizer.special.vocab_size
        strays = [part for part in previous if isinstance(part, int) and not 0 <= part < size]
        if strays:
            raise SampleError(
                BAD_PREVIOUS, f"its text before has the token id {strays[0]}: the vocabulary has {size}"
            )

    def _encode(self, text: str) -> list[int]:
        spoken = SPECIAL_MARK.sub("", text).rstrip()
        return self._tokenizer.encode(TEXT_START.sub(rf"\1{self._opening}", spoken))

    def _round_timestamps(self, tokens: list[int]) -> list[int]:
        if not self._config.round_timestamps:
            return tokens
        return round_timestamps(tokens, self._tokenizer.special, step_seconds=COARSE_TIMESTAMP_SECONDS)

    def _rescale_timestamps(self, tokens: list[int], speed: float) -> list[int]:
        """Return tokens with their timestamps divided by the speed of the recording."""
        if speed == 1.0:
            return tokens
        special = self._tokenizer.special
        last = special.timestamp_end - 1
        return [
            min(special.timestamp_begin + round((token - special.timestamp_begin) / speed), last)
            if special.is_timestamp(token)
            else token
            for token in tokens
        ]

    def _move_timestamps(self, tokens: list[int], part: TextPart) -> list[int]:
        """Return the tokens of a part between timestamps, with times relative to the whole sample."""
        special = self._tokenizer.special
        start, end = (timestamp_token(seconds, special) for seconds in (part.start, part.end))
        moved = [
            # A teacher may put the end of speech after the end of the recording.
            min(token - special.timestamp_begin + start, end) if special.is_timestamp(token) else token
            for token in tokens
        ]
        if moved and not special.is_timestamp(moved[0]):
            moved.insert(0, start)
        if moved and not special.is_timestamp(moved[-1]):
            moved.append(end)
        return moved

    def _has_timestamps(self, tokens: list[int]) -> bool:
        return any(self._tokenizer.special.is_timestamp(token) for token in tokens)

    def _prompt_with_previous(self, previous: Previous, timed: bool, label_length: int) -> list[int]:
        special = self._tokenizer.special
        said = (self._encode(part) if isinstance(part, str) else [part] for part in previous)
        tokens = [token for part in said for token in part if token < special.eot]
        plain = self._tokenizer.prompt(self._config.language, self._task, timed)
        room = DECODER_POSITIONS - len(plain) - label_length - 1  # one for <|startofprev|>
        tokens = tokens[max(0, len(tokens) - room) :] if room > 0 else []
        return self._tokenizer.prompt(self._config.language, self._task, timed, tokens)


def check_timestamps(text: str, seconds: float | None) -> None:
    """Raise :class:`SampleError` if :func:`timestamp_problem` finds a problem."""
    if (problem := timestamp_problem(text, seconds)) is not None:
        raise SampleError(BAD_TIMESTAMPS, problem)


def timestamp_problem(text: str, seconds: float | None) -> str | None:
    """Return a sentence about what is wrong with the timestamps of a label; None if nothing is wrong.

    Args:
        text: The label.
        seconds: Length of its recording; None if it is unknown.
    """
    times = [float(time) for time in TIMESTAMP_MARK.findall(text)]
    if not times:
        return None
    for before, after in itertools.pairwise(times):
        if after < before:
            return f"its label has the timestamp {after:.2f} behind {before:.2f}"
    end = min(LAST_TIMESTAMP_SECONDS, math.inf if seconds is None else seconds + TIMESTAMP_SLACK_SECONDS)
    if times[-1] > end:
        lasts = "at most 30 s are taken" if seconds is None else f"it lasts {seconds:.2f} s"
        return f"its label has the timestamp {times[-1]:.2f}, and {lasts}"
    return None


def spoken_text(text: str) -> str:
    """Return a pseudo-label without timestamps and special tokens, for comparison with a reference."""
    return strip_timestamp_text(SPECIAL_MARK.sub("", text)).strip()


def sample_random(*, seed: int, epoch: int, sample_id: str) -> np.random.Generator:
    """Return the random numbers of one sample in one epoch; they are the same in every process."""
    # The hash function of Python differs between processes.
    digest = hashlib.blake2b(sample_id.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest, "little")])
