"""Encoder output of a batch of windows, some of which were encoded before."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator
from flax_distil.transcription.sequential.recording import SequentialRecording

Features = Callable[[Sequence[SequentialRecording], int], Float[np.ndarray, "B R M"]]


class _Encoded(NamedTuple):
    """A window, and which row of which batch its encoder output is; that batch has ``rows`` rows."""

    part: SequentialRecording
    encoder_out: EncoderOutput
    row: int
    rows: int


class WindowEncoder:
    """Encodes each window once: those that are tried again at another temperature keep their encoder output.

    A batch of old and new windows is put together on the host, so that nothing is compiled for it.
    """

    def __init__(self, generator: WhisperGenerator, *, features: Features, rows_for: Callable[[int], int]):
        """Begin without windows.

        Args:
            generator: Encodes the windows.
            features: Returns the features of windows, and of idle rows up to a number of rows.
            rows_for: Returns the number of rows of a batch with this many windows.
        """
        self._generator, self._features, self._rows_for = generator, features, rows_for
        self._kept: list[_Encoded] = []

    def encode(self, parts: Sequence[SequentialRecording]) -> EncoderOutput:
        """Return the encoder output of the present windows of a batch."""
        kept = {id(place.part): place for place in self._kept if place.part.attempt}
        new = [part for part in parts if id(part) not in kept]
        if len(new) == len(parts):
            return self._encode(parts)
        places = [kept[id(part)] for part in parts if id(part) in kept]
        if not new and self._is_last_batch(parts):
            return places[0].encoder_out
        if new:
            encoder_out = self._encode(new)
            rows = self._rows_for(len(new))
            kept |= {id(part): _Encoded(part, encoder_out, row, rows) for row, part in enumerate(new)}
        return self._gather([kept[id(part)] for part in parts], rows=self._rows_for(len(parts)))

    def keep(self, parts: Sequence[SequentialRecording], encoder_out: EncoderOutput) -> None:
        """Keep the encoder output of windows that are to be tried again.

        Args:
            parts: The rows of a batch, after it was decoded.
            encoder_out: Encoder output of the batch.
        """
        rows = self._rows_for(len(parts))
        batch = [_Encoded(part, encoder_out, row, rows) for row, part in enumerate(parts)]
        ours = set(map(id, parts))
        waiting = [place for place in self._kept if id(place.part) not in ours]
        self._kept = [place for place in [*waiting, *batch] if place.part.attempt]

    def _encode(self, parts: Sequence[SequentialRecording]) -> EncoderOutput:
        return self._generator.encode_features(self._features(parts, self._rows_for(len(parts))))

    def _is_last_batch(self, parts: Sequence[SequentialRecording]) -> bool:
        """Say whether all windows of one batch, in their order, and no others are tried again."""
        return (
            [place.part for place in self._kept] == list(parts)
            and [place.row for place in self._kept] == list(range(len(parts)))
            and len({id(place.encoder_out) for place in self._kept}) == 1
            and self._kept[0].rows == self._rows_for(len(parts))
        )

    def _gather(self, places: Sequence[_Encoded], *, rows: int) -> EncoderOutput:
        partitioner = self._generator.partitioner
        batches = {id(place.encoder_out): partitioner.local_rows(dict(place.encoder_out)) for place in places}
        names = list(places[0].encoder_out)
        gathered = {
            name: [batches[id(place.encoder_out)][name][place.row] for place in places] for name in names
        }
        filled = {name: [*own, *own[:1] * (rows - len(own))] for name, own in gathered.items()}
        encoder_out: EncoderOutput = partitioner.put_batch(
            {name: np.stack(own) for name, own in filled.items()}
        )
        return encoder_out
