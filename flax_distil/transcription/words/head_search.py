"""Finds the heads of a model that follow the speech, by how well its words agree with known ones.

The heads of a student differ from those of its teacher.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from flax_distil.core.arrays import Array, Float, Params
from flax_distil.decoding.alignment import AlignmentInputs, align_by_choices
from flax_distil.text.generation_settings import default_alignment_heads
from flax_distil.transcription.decode_fns import Batch, ModelShape, jit_rows
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator
from flax_distil.transcription.results import AlignedWord
from flax_distil.transcription.words.word_timestamps import (
    POSITIONS_PER_SECOND,
    AlignmentRequest,
    Heads,
    WordAligner,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownWords:
    """A window whose words are known.

    Attributes:
        request: Its text.
        words: Words that another model found in the same text.
    """

    request: AlignmentRequest
    words: tuple[AlignedWord, ...]

    @property
    def token_bounds(self) -> list[int]:
        """Number of tokens before each word, and before the end."""
        return list(itertools.accumulate((len(word.tokens) for word in self.words), initial=0))

    @property
    def seconds(self) -> np.ndarray:
        """When each word begins, and the last one ends."""
        return np.asarray([*(word.start for word in self.words), self.words[-1].end])


@dataclasses.dataclass(frozen=True)
class WordErrors:
    """How far words are from known ones.

    Attributes:
        mean_seconds: Mean distance of their boundaries.
        within_tenth: Share of boundaries no more than 0.1 s away, from 0 to 1.
    """

    mean_seconds: float
    within_tenth: float


Windows = Sequence[tuple[EncoderOutput, Sequence[KnownWords | None]]]
"""Batches: the model's encoder output, and the words of each row; None for rows that do not count."""


class HeadSearch:
    """Compares choices of heads of one model.

    Attributes:
        candidates: Every head of its decoder.
        present: The heads that its checkpoint names, if it has them; otherwise the default of openai/whisper.
    """

    def __init__(self, generator: WhisperGenerator):
        """Compile nothing yet."""
        config = generator.config
        layers, heads = config.decoder_layers, config.decoder_attention_heads
        self.candidates: Heads = tuple(itertools.product(range(layers), range(heads)))
        named = sorted(set(generator.settings.alignment_heads) & set(self.candidates))
        self.present: Heads = tuple(named) or default_alignment_heads(layers, heads)
        self._generator, self._aligner = generator, WordAligner(generator, heads=self.present)

    def find(self, windows: Windows, *, most: int) -> Heads:
        """Return heads whose mean follows the words well.

        From none, and from those present, the head that helps most is added or removed while one helps;
        the better of the two results is taken.

        Args:
            windows: At least one with words.
            most: Maximum number of heads.
        """
        ends = [self._improve(windows, start, most) for start in ((), self.present[:most])]
        return min(ends, key=lambda end: end[0])[1]

    def _improve(self, windows: Windows, chosen: Heads, most: int) -> tuple[float, Heads]:
        error = self.errors(windows, [chosen])[0].mean_seconds if chosen else float("inf")
        while True:
            flipped = [tuple(sorted({*chosen} ^ {head})) for head in self.candidates]
            choices = [heads for heads in flipped if 0 < len(heads) <= most]
            errors = [found.mean_seconds for found in self.errors(windows, choices)] if choices else []
            if not errors or min(errors) >= error:
                return error, chosen
            error, chosen = min(zip(errors, choices, strict=True))

    def errors(self, windows: Windows, choices: Sequence[Heads]) -> list[WordErrors]:
        """Return the errors of the words that each choice of heads gives, over all windows together."""
        distances: list[list[np.ndarray]] = [[] for _ in choices]
        width = len(self.candidates)  # always as many choices at once: one program
        for start in range(0, len(choices), width):
            part = choices[start : start + width]
            for encoder_out, rows in windows:
                self._add_distances(distances[start : start + width], encoder_out, rows, self._shares(part))
        joined = [np.concatenate(found) for found in distances]
        return [WordErrors(float(d.mean()), float((d <= 0.1 + 1e-6).mean())) for d in joined]

    def _add_distances(
        self,
        distances: Sequence[list[np.ndarray]],
        encoder_out: EncoderOutput,
        rows: Sequence[KnownWords | None],
        share_CA: Float[np.ndarray, "C A"],
    ) -> None:
        generator = self._generator
        batch = self._aligner.batch([None if row is None else row.request for row in rows])
        sent = generator.partitioner.put_batch(batch | {"share_BCA": np.stack([share_CA] * len(rows))})
        found_BCT = generator.partitioner.local_rows(
            self._align(generator.decoder_params, {"encoder_out_BSD": encoder_out["encoder_out_BSD"], **sent})
        )
        for row, found_CT in zip(rows, found_BCT, strict=True):
            if row is not None and row.words:
                seconds_CE = found_CT[:, row.token_bounds] / POSITIONS_PER_SECOND
                for number, of_choice in enumerate(distances):
                    of_choice.append(np.abs(seconds_CE[number] - row.seconds))

    def _shares(self, choices: Sequence[Heads]) -> Float[np.ndarray, "C A"]:
        share_CA = np.zeros((len(self.candidates), len(self.candidates)), np.float32)
        for number, heads in enumerate(choices):
            share_CA[number, [self.candidates.index(head) for head in heads]] = 1 / len(heads)
        return share_CA

    @property
    def _align(self) -> Callable[..., Array]:
        generator = self._generator
        align = functools.partial(_align, generator.shape, self.candidates, self._aligner.prompt_length)
        return jit_rows(generator.partitioner, generator.shape, align, "decoder")


def _align(shape: ModelShape, heads: Heads, text_start: int, decoder: Params, batch: Batch) -> Array:
    return align_by_choices(
        shape.bind_decoder(decoder),
        AlignmentInputs(**{name: value for name, value in batch.items() if name != "share_BCA"}),
        batch["share_BCA"],
        text_start=text_start,
        heads=heads,
    )
