"""When every word of a transcript is spoken."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np

from flax_distil.audio.constants import HOP_LENGTH
from flax_distil.core.arrays import Float, Params
from flax_distil.core.errors import InputError
from flax_distil.decoding.alignment import AlignmentInputs, TokenAlignment, align_tokens
from flax_distil.metrics.hallucination import compression_ratio
from flax_distil.model.config import WhisperConfig
from flax_distil.text.generation_settings import GenerationSettings, default_alignment_heads
from flax_distil.text.special_tokens import SpecialTokens
from flax_distil.text.words import split_words
from flax_distil.transcription.decode_fns import Batch, ModelShape, jit_rows
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator
from flax_distil.transcription.results import AlignedWord, TranscribedSegment, Transcript
from flax_distil.transcription.words.word_segments import attach_words

SHORT_TOKENS = 128
"""Texts with their prompt are padded to this many tokens, or to as many as the model has room for."""

Heads = tuple[tuple[int, int], ...]
"""Pairs of decoder layer and head."""

_FRAMES_PER_POSITION = 2

POSITIONS_PER_SECOND = 50
"""Number of encoder positions per second: the grid of word times."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentRequest:
    """The text of one window of a batch.

    Attributes:
        tokens: Ids of text, without timestamps.
        language: Code of the language.
        frames: Number of frames of 10 ms with content, at most 3000; the padding behind them is ignored.
    """

    tokens: tuple[int, ...]
    language: str
    frames: int


class WordAligner:
    """Finds the words of windows whose text is known, in batches.

    Functions are compiled once per batch size and per padded length of text, of which there are two.

    Attributes:
        generator: The checkpoint.
        heads: Pairs of decoder layer and head whose attention is followed.
        prompt_length: Number of tokens before a text.
    """

    def __init__(self, generator: WhisperGenerator, *, heads: Heads | None = None):
        """Choose the heads; compiles nothing.

        Args:
            generator: The checkpoint.
            heads: To follow; by default those :func:`alignment_heads` returns.

        Raises:
            InputError: If the checkpoint names heads that the model does not have.
        """
        self.generator = generator
        self.heads = heads or alignment_heads(generator.settings, generator.config)
        self.prompt_length = len(self._prompt(None))

    def warm_up(self, batch_size: int, encoder_out: EncoderOutput | None = None) -> float:
        """Compile for batches of this size and return the seconds it took.

        Args:
            batch_size: Rows of this process.
            encoder_out: Encoder output of any such batch; by default the encoder is compiled too.
        """
        start = time.perf_counter()
        if encoder_out is None:
            silence_BW = np.zeros((batch_size, self.generator.config.window_samples), np.float32)
            encoder_out = self.generator.encode_samples(silence_BW)
        room = self.generator.config.max_target_positions - self.prompt_length
        longest = min(self.generator.max_new_tokens, room)
        for length in {min(longest, SHORT_TOKENS - self.prompt_length), longest}:
            request = AlignmentRequest(tokens=(0,) * length, language=self._any_language, frames=2)
            self.align(encoder_out, [request] * batch_size)
        return time.perf_counter() - start

    def align(
        self, encoder_out: EncoderOutput, rows: Sequence[AlignmentRequest | None]
    ) -> list[tuple[AlignedWord, ...] | None]:
        """Wait for the words of a batch of windows; a row does not depend on its neighbors.

        Args:
            encoder_out: Encoder output of the batch.
            rows: One for each of this process's rows; None leaves a row idle.

        Returns:
            The words of each window in order, and None of idle rows.

        Raises:
            ValueError: If a text is longer than the model has room for.
        """
        batch = self.generator.partitioner.put_batch(self.batch(rows))
        found = self._align(
            self.generator.decoder_params, {"encoder_out_BSD": encoder_out["encoder_out_BSD"], **batch}
        )
        aligned = self.generator.partitioner.local_rows(vars(found))
        return [
            None if row is None else self._words(row, position_T / POSITIONS_PER_SECOND, probability_T)
            for row, position_T, probability_T in zip(
                rows, aligned["position_BT"], aligned["probability_BT"], strict=True
            )
        ]

    def batch(self, rows: Sequence[AlignmentRequest | None]) -> dict[str, np.ndarray]:
        """Return the fields of ``AlignmentInputs`` besides the encoder output."""
        given = [row or AlignmentRequest(tokens=(), language=self._any_language, frames=0) for row in rows]
        slots = self._slots(max(len(row.tokens) for row in given))
        tokens_BT = np.full((len(given), slots), self.generator.tokenizer.special.eot, np.int32)
        for index, row in enumerate(given):
            tokens = [*self._prompt(row.language), *row.tokens]
            tokens_BT[index, : len(tokens)] = tokens
        text_length_B = np.asarray([len(row.tokens) for row in given], np.int32)
        positions_B = np.asarray([row.frames for row in given], np.int32) // _FRAMES_PER_POSITION
        return {
            "tokens_BT": tokens_BT,
            "text_length_B": text_length_B,
            "positions_B": positions_B.clip(1, self.generator.config.max_source_positions),
        }

    def _slots(self, text_length: int) -> int:
        """Return the length that texts are padded to."""
        room = self.generator.config.max_target_positions
        needed = self.prompt_length + text_length
        if needed > room:
            raise ValueError(
                f"expected at most {room - self.prompt_length} tokens of text, got {text_length}"
            )
        return min(room, SHORT_TOKENS) if needed <= SHORT_TOKENS else room

    def _words(
        self, row: AlignmentRequest, seconds_T: np.ndarray, probability_T: np.ndarray
    ) -> tuple[AlignedWord, ...]:
        words = split_words(row.tokens, self.generator.tokenizer, language=row.language)
        bounds = itertools.accumulate((len(word.tokens) for word in words), initial=0)
        return tuple(
            AlignedWord(
                text=word.text,
                start=float(seconds_T[first]),
                end=float(seconds_T[last]),
                probability=float(probability_T[first:last].mean()),
                tokens=word.tokens,
            )
            for word, (first, last) in zip(words, itertools.pairwise(bounds), strict=True)
        )

    def _prompt(self, language: str | None) -> list[int]:
        tokenizer, task = self.generator.tokenizer, self.generator.options.task
        spoken = (language or self._any_language) if tokenizer.special.is_multilingual else None
        return tokenizer.prompt(spoken, task, timestamps=False)

    @property
    def _any_language(self) -> str:
        return self.generator.options.language or self.generator.prompts.any_language or "en"

    @property
    def _align(self) -> Callable[..., TokenAlignment]:
        generator, special = self.generator, self.generator.tokenizer.special
        align = functools.partial(_align, generator.shape, self.heads, self.prompt_length, special)
        return jit_rows(generator.partitioner, generator.shape, align, "decoder")


def add_words(
    aligner: WordAligner, encoder_out: EncoderOutput, transcripts: Sequence[Transcript], frames: Sequence[int]
) -> list[Transcript]:
    """Find the words of recordings of one window each.

    Args:
        aligner: Finds words with the checkpoint.
        encoder_out: Encoder output of the batch.
        transcripts: Transcripts of all rows; one without timestamps becomes one segment.
        frames: With content, of each row.

    Returns:
        The transcripts with words in their segments.
    """
    segments = [transcript.segments or _one_segment(transcript, aligner) for transcript in transcripts]
    requests = [
        AlignmentRequest(
            tokens=tuple(token for segment in of_one for token in segment.tokens),
            language=transcript.language,
            frames=count,
        )
        for transcript, of_one, count in zip(transcripts, segments, frames, strict=True)
    ]
    return [
        dataclasses.replace(
            transcript,
            segments=attach_words(
                of_one,
                words or (),
                last_speech_timestamp=0.0,
                offset=0.0,
                punctuations=aligner.generator.options.punctuations,
            )[0],
        )
        for transcript, of_one, words in zip(
            transcripts, segments, aligner.align(encoder_out, requests), strict=True
        )
    ]


def _one_segment(transcript: Transcript, aligner: WordAligner) -> tuple[TranscribedSegment, ...]:
    tokens = tuple(transcript.tokens)
    if not tokens:
        return ()
    segment = TranscribedSegment(
        start=0.0,
        end=None,
        text=aligner.generator.tokenizer.decode(tokens),
        tokens=tokens,
        avg_logprob=transcript.avg_logprob,
        no_speech_prob=transcript.no_speech_prob,
        temperature=transcript.temperature,
        compression_ratio=compression_ratio(transcript.text),
        emitted_tokens=tokens,
    )
    return (segment,)


def content_frames(samples_BW: Float[np.ndarray, "B W"]) -> list[int]:
    """Return how many frames of 10 ms each recording has before the zeros that pad it."""
    reverse_BW = samples_BW[:, ::-1] != 0
    silent_B = np.where(reverse_BW.any(axis=1), reverse_BW.argmax(axis=1), samples_BW.shape[1])
    frames: list[int] = ((samples_BW.shape[1] - silent_B) // HOP_LENGTH).tolist()
    return frames


def alignment_heads(settings: GenerationSettings, config: WhisperConfig) -> Heads:
    """Return the alignment heads of a checkpoint by layer; by default those of openai/whisper.

    Raises:
        InputError: If it names heads that the model does not have.
    """
    layers, heads = config.decoder_layers, config.decoder_attention_heads
    strays = [
        pair for pair in settings.alignment_heads if not (0 <= pair[0] < layers and 0 <= pair[1] < heads)
    ]
    if strays:
        raise InputError(
            f"alignment_heads of the generation config name layer {strays[0][0]}, head {strays[0][1]}, "
            f"but the decoder has {layers} layers of {heads} heads: find its own by flax-distil align-heads"
        )
    return tuple(sorted(set(settings.alignment_heads))) or default_alignment_heads(layers, heads)


def _align(
    shape: ModelShape,
    heads: Heads,
    text_start: int,
    special: SpecialTokens,
    decoder: Params,
    batch: Batch,
) -> TokenAlignment:
    return align_tokens(
        shape.bind_decoder(decoder),
        AlignmentInputs(**batch),
        text_start=text_start,
        special=special,
        heads=heads,
    )
