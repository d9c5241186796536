"""Make decoder inputs, targets and the loss mask from a text.

One sequence of tokens is shifted against itself; ``x`` marks targets without a loss::

    tokens   sop  previous text  sot  en  transcribe  notimestamps  text text  eot
    inputs   sop  previous text  sot  en  transcribe  notimestamps  text text
    targets       previous text  sot  en  transcribe  notimestamps  text text  eot
    loss          x  x  x  x  x   x   1       1            1          1   1     1

Everything up to and including ``<|startoftranscript|>`` is given, never learned; language,
task, timestamps, text and the end are learned.
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
"""Special tokens spelt out in a pseudo-label, timestamps excepted."""

TEXT_START = re.compile(r"^((?:<\|\d+\.\d+\|>)*+)(?=\S)")
"""Where the first word of a text begins, after its timestamp, if no space does."""

TIMESTAMP_MARK = re.compile(r"<\|(\d+\.\d+)\|>")

COARSE_TIMESTAMP_SECONDS = 0.1

BAD_PREVIOUS = "with an impossible text before"

BAD_TIMESTAMPS = "with impossible timestamps"

TIMESTAMP_SLACK_SECONDS = 1.0
"""A teacher may hear speech end in the silence after a recording, but not long after it."""


Previous = tuple[str | int, ...]
"""What was said before a sample: texts, or token ids of the model's vocabulary."""


@dataclass(frozen=True, kw_only=True)
class LabelTokens:
    """The tokens of one sample, not yet padded.

    Attributes:
        tokens: int32, prompt to ``<|endoftext|>``, one more than there are inputs.
        given: Number of leading tokens, ``<|startoftranscript|>`` included, that are no targets.
    """

    tokens: Int[np.ndarray, " P"]
    given: int

    @property
    def decoder_input_ids_T(self) -> Int[np.ndarray, " T"]:
        """What the decoder reads: all tokens but the last."""
        return self.tokens[:-1]

    @property
    def labels_T(self) -> Int[np.ndarray, " T"]:
        """What it should say after each of them: all tokens but the first."""
        return self.tokens[1:]

    @property
    def loss_mask_T(self) -> Bool[np.ndarray, " T"]:
        """Which of :attr:`labels_T` count in the loss."""
        return np.arange(1, len(self.tokens)) >= self.given


class LabelBuilder:
    """Makes labels; holds no state, so every thread may use it.

    Args:
        tokenizer: The model's tokenizer.
        config: How.

    Raises:
        InputError: If language or task are not this model's.
    """

    def __init__(self, tokenizer: WhisperTokenizer, config: LabelConfig):
        self._tokenizer = tokenizer
        self._config, self._task = config, config.task or "transcribe"
        # Fails here, before any work, when language or task are wrong.
        tokenizer.prompt(config.language, self._task, False)
        # Translations are English, whatever was spoken.
        spoken = config.language if self._task == "transcribe" else None
        code = language_code(spoken) if spoken else "en"
        self._opening = "" if code in LANGUAGES_WITHOUT_SPACES else " "

    def fingerprint(self) -> str:
        """Return what changes when its labels may: the settings and the vocabulary."""
        return f"{self._config!r} {self._tokenizer.fingerprint()}"

    @property
    def pad_token(self) -> int:
        """The id after the end of a label; masked, and valid as an index."""
        return self._tokenizer.special.eot

    @property
    def uses_previous(self) -> bool:
        """Whether a label may be prompted with what was said before."""
        return self._config.condition_on_prev_probability > 0

    @property
    def max_label_length(self) -> int:
        """Longest label in tokens, without the previous text."""
        return self._config.max_label_length

    def text_tokens(self, text: str) -> list[int]:
        """Return a text's tokens with its timestamps, without prompt and end.

        Special tokens spelt out in a pseudo-label are removed: the prompt is built again. Where
        the language has spaces, a text starts with one, as Whisper's own transcripts do.
        """
        return self._round_timestamps(self._encode(text))

    def length(self, text: str) -> int:
        """Return the number of tokens that ``max_label_length`` limits, at its longest: with timestamps."""
        tokens = self.text_tokens(text)
        timed = self._has_timestamps(tokens)
        return len(self._tokenizer.prompt(self._config.language, self._task, timed)) + len(tokens)

    def part_length(self, text: str) -> int:
        """Return the number of tokens of a text at its longest as a part of others: between timestamps."""
        tokens = self._encode(text)
        special = self._tokenizer.special
        return len(tokens) + sum(not special.is_timestamp(token) for token in (tokens[:1] + tokens[-1:]))

    @property
    def max_parts_length(self) -> int:
        """Most tokens of all parts together, by :meth:`part_length`."""
        return self.max_label_length - len(self._tokenizer.prompt(self._config.language, self._task, False))

    def longest(self, texts: Iterable[str | None]) -> int:
        """Return the tokens of the longest label that is taken, 0 if none is; without previous texts."""
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
            text: What was said, with or without timestamps.
            previous: What the same speaker said before.
            random: Decides on timestamps and prompt; see :func:`sample_random`.
            speed: How much faster the recording is played than it was labelled.
            seconds: Length of the recording as it was labelled; None does not compare timestamps with it.

        Returns:
            The tokens. A prompt that does not fit beside its label loses its beginning.

        Raises:
            SampleError: If there is no text, it is too long, or its timestamps go back or beyond the end, or
                an id of the text before is none.
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
        """Make the label of recordings that were joined to one sample.

        The tokens of the parts follow each other as they are. Their timestamps are moved to where their
        recordings lie. If any part has timestamps, all have: a text that does not begin or end with
        one gets the beginning or end of its recording.

        Args:
            parts: The parts in order of time.
            previous: What the same speaker said before.
            random: As for :meth:`build`.
            speed: As for :meth:`build`.

        Raises:
            SampleError: If a part has no text, or impossible timestamps, or they are too long together.
        """
        encoded = []
        for part in parts:
            if part.text is None:
                raise SampleError(NO_LABEL, "one of its recordings has no text to learn")
            check_timestamps(part.text, None)  # those after its end were judged with its row
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
        # Judged with timestamps even if they are dropped now: a row is either always used or never.
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
        """Refuse ids that are none, whether or not they are used now."""
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
        """Return tokens with their timestamps where a recording played faster has them."""
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
        """Return a part's tokens on the time of the whole, opened and closed by timestamps."""
        special = self._tokenizer.special
        start, end = (timestamp_token(seconds, special) for seconds in (part.start, part.end))
        moved = [
            # A teacher may hear speech end in the silence after the recording.
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
    """Raise :class:`SampleError` if :func:`timestamp_problem` says why."""
    if (problem := timestamp_problem(text, seconds)) is not None:
        raise SampleError(BAD_TIMESTAMPS, problem)


def timestamp_problem(text: str, seconds: float | None) -> str | None:
    """Say what is wrong with the timestamps of a label; None if nothing is.

    Args:
        text: The label.
        seconds: Length of its recording; None where that is not known.
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
    """Return a pseudo-label without timestamps and special tokens: what is compared with a reference."""
    return strip_timestamp_text(SPECIAL_MARK.sub("", text)).strip()


def sample_random(*, seed: int, epoch: int, sample_id: str) -> np.random.Generator:
    """Return the random numbers of one sample in one epoch, whichever thread, process or run asks."""
    # Python's own hash differs from process to process.
    digest = hashlib.blake2b(sample_id.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest, "little")])
