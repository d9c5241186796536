"""Make decoder inputs, targets and the loss mask from a text.

Inputs and targets are one sequence of tokens, shifted by one; ``x`` marks targets without a loss::

    tokens   sop  previous text  sot  en  transcribe  notimestamps  text text  eot
    inputs   sop  previous text  sot  en  transcribe  notimestamps  text text
    targets       previous text  sot  en  transcribe  notimestamps  text text  eot
    loss          x  x  x  x  x   x   1       1            1          1   1     1

Tokens up to and including ``<|startoftranscript|>`` are given and not learned; language, task, timestamps,
text and the end are learned.

Where nobody speaks, two targets count. ``<|nospeech|>`` is that behind ``<|startoftranscript|>``,
as in Whisper's own training, which the threshold for silence reads; and the end right behind the prompt, so
that the text is empty wherever decoding forces a prompt, as it always does::

    inputs   sot         en  transcribe  notimestamps
    targets  nospeech    transcribe  notimestamps  eot
    loss     1           x           x             1
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
        no_speech: Id of ``<|nospeech|>`` if nobody speaks in the sample, otherwise None.
    """

    tokens: Int[np.ndarray, " P"]
    given: int
    no_speech: int | None = None

    @property
    def decoder_input_ids_T(self) -> Int[np.ndarray, " T"]:
        """Inputs of the decoder: all tokens except the last."""
        return self.tokens[:-1]

    @property
    def labels_T(self) -> Int[np.ndarray, " T"]:
        """Targets of the decoder: all tokens except the first, and ``<|nospeech|>`` where nobody speaks."""
        if self.no_speech is None:
            return self.tokens[1:]
        first = self.given - 1
        return np.array([*self.tokens[1 : first + 1], self.no_speech, *self.tokens[first + 2 :]], np.int32)

    @property
    def loss_mask_T(self) -> Bool[np.ndarray, " T"]:
        """Which of :attr:`labels_T` count in the loss."""
        positions_T = np.arange(1, len(self.tokens))
        if self.no_speech is None:
            return positions_T >= self.given
        return (positions_T == self.given) | (positions_T == len(self.tokens) - 1)


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
        offset_seconds: float = 0.0,
        seconds: float | None = None,
    ) -> LabelTokens:
        """Make the label of one sample.

        Args:
            text: Text of the sample, with or without timestamps.
            previous: Text of the same speaker before the sample.
            random: Random numbers that decide on timestamps and prompt; see :func:`sample_random`.
            speed: Factor by which the recording is faster than when it was labelled.
            offset_seconds: Time by which it begins later, after the change of speed.
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
        return self._build(self._change_times(self._encode(text), speed, offset_seconds), previous, random)

    def build_joined(
        self,
        parts: Sequence[TextPart],
        *,
        previous: Previous = (),
        random: np.random.Generator,
        speed: float = 1.0,
        offset_seconds: float = 0.0,
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
            offset_seconds: Beginning of the recordings, as for :meth:`build`.

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
        return self._build(self._change_times(joined, speed, offset_seconds), previous, random)

    def build_without_speech(
        self, texts: Sequence[str | None], *, previous: Previous = (), random: np.random.Generator
    ) -> LabelTokens:
        """Make the label of a clip in which nobody speaks, and which stands in the place of a sample.

        It has a prompt with or without timestamps, and with or without the previous text, as often as the
        sample itself would have.

        Args:
            texts: The texts of the sample.
            previous: Text of the same speaker before the sample.
            random: Random numbers, as for :meth:`build`.

        Raises:
            SampleError: If the previous text has an unknown id.

        Source: arXiv 2212.04356, section 2.3, for ``<|nospeech|>``.
        """
        self._check_previous(previous)
        keep_timestamps, use_previous = self._draw(random)
        timed = keep_timestamps and any(TIMESTAMP_MARK.search(text or "") for text in texts)
        special = self._tokenizer.special
        tokens = [special.timestamp_begin] if timed else []
        if previous and use_previous:
            prompt = self._prompt_with_previous(previous, timed, len(tokens))
        else:
            prompt = self._tokenizer.prompt(self._config.language, self._task, timed)
        return LabelTokens(
            tokens=np.array([*prompt, *tokens, special.eot], np.int32),
            given=prompt.index(special.sot) + 1,
            no_speech=special.no_speech,
        )

    def _build(self, tokens: list[int], previous: Previous, random: np.random.Generator) -> LabelTokens:
        self._check_previous(previous)
        timed = self._has_timestamps(tokens)
        prompt = self._tokenizer.prompt(self._config.language, self._task, timed)
        length, limit = len(prompt) + len(tokens), self._config.max_label_length
        # Lengths include timestamps even if they are dropped now, so that a row is always or never used.
        if length > limit:
            raise SampleError(LABEL_TOO_LONG, f"its label has {length} tokens: at most {limit} are taken")
        keep_timestamps, use_previous = self._draw(random)
        if timed and not keep_timestamps:
            tokens = strip_timestamps(tokens, self._tokenizer.special)
            prompt = self._tokenizer.prompt(self._config.language, self._task, False)
        if previous and use_previous:
            prompt = self._prompt_with_previous(previous, timed and keep_timestamps, len(tokens))
        given = prompt.index(self._tokenizer.special.sot) + 1
        sequence = np.array([*prompt, *tokens, self._tokenizer.special.eot], np.int32)
        return LabelTokens(tokens=sequence, given=given)

    def _draw(self, random: np.random.Generator) -> tuple[bool, bool]:
        """Draw whether a label keeps its timestamps, and whether it is prompted with the previous text."""
        timestamps, prompt = random.random(2).tolist()
        return (
            timestamps < self._config.timestamp_probability,
            prompt < self._config.condition_on_prev_probability,
        )

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

    def _change_times(self, tokens: list[int], speed: float, offset_seconds: float) -> list[int]:
        """Return tokens with their timestamps divided by the speed, moved by the offset, and rounded."""
        special = self._tokenizer.special
        first, last = special.timestamp_begin, special.timestamp_end - 1
        offset = timestamp_token(offset_seconds, special) - first
        if speed != 1.0 or offset:
            tokens = [
                min(first + round((token - first) / speed) + offset, last)
                if special.is_timestamp(token)
                else token
                for token in tokens
            ]
        return self._round_timestamps(tokens)

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
