"""Encoder states of a batch of windows, of which some were encoded before."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.transcription.generator import EncoderOutput, WhisperGenerator
from flax_distil.transcription.sequential.recording import SequentialRecording

Features = Callable[[Sequence[SequentialRecording], int], Float[np.ndarray, "B R M"]]


class _Place(NamedTuple):
    """Where the states of a window are."""

    part: SequentialRecording
    states: EncoderOutput
    row: int
    rows: int


class WindowStates:
    """Encodes windows, each once: those that are tried again at another temperature keep their states.

    A batch of old and new windows is put together on the host, where no shape is new.
    """

    def __init__(self, generator: WhisperGenerator, *, features: Features, rows_for: Callable[[int], int]):
        """Begin without states.

        Args:
            generator: encodes.
            features: returns the features of windows, and of idle rows up to a number of rows.
            rows_for: returns the rows of a batch of so many windows.
        """
        self._generator, self._features, self._rows_for = generator, features, rows_for
        self._kept: list[_Place] = []

    def encode(self, parts: Sequence[SequentialRecording]) -> EncoderOutput:
        """Return the states of the present windows of a batch."""
        kept = {id(place.part): place for place in self._kept if place.part.attempt}
        new = [part for part in parts if id(part) not in kept]
        if len(new) == len(parts):
            return self._encoded(parts)
        places = [kept[id(part)] for part in parts if id(part) in kept]
        if not new and self._is_last_batch(parts):
            return places[0].states
        if new:
            states = self._encoded(new)
            rows = self._rows_for(len(new))
            kept |= {id(part): _Place(part, states, row, rows) for row, part in enumerate(new)}
        return self._gathered([kept[id(part)] for part in parts], rows=self._rows_for(len(parts)))

    def keep(self, parts: Sequence[SequentialRecording], states: EncoderOutput) -> None:
        """Keep the states of windows that are to be tried again.

        Args:
            parts: of the batch, after it was decoded.
            states: of its windows.
        """
        rows = self._rows_for(len(parts))
        batch = [_Place(part, states, row, rows) for row, part in enumerate(parts)]
        ours = set(map(id, parts))
        waiting = [place for place in self._kept if id(place.part) not in ours]
        self._kept = [place for place in [*waiting, *batch] if place.part.attempt]

    def _encoded(self, parts: Sequence[SequentialRecording]) -> EncoderOutput:
        return self._generator.encode_features(self._features(parts, self._rows_for(len(parts))))

    def _is_last_batch(self, parts: Sequence[SequentialRecording]) -> bool:
        """Say whether all windows of one batch, in their order, and no others are tried again."""
        return (
            [place.part for place in self._kept] == list(parts)
            and [place.row for place in self._kept] == list(range(len(parts)))
            and len({id(place.states) for place in self._kept}) == 1
            and self._kept[0].rows == self._rows_for(len(parts))
        )

    def _gathered(self, places: Sequence[_Place], *, rows: int) -> EncoderOutput:
        partitioner = self._generator.partitioner
        batches = {id(place.states): partitioner.local_rows(dict(place.states)) for place in places}
        names = list(places[0].states)
        gathered = {name: [batches[id(place.states)][name][place.row] for place in places] for name in names}
        filled = {name: [*own, *own[:1] * (rows - len(own))] for name, own in gathered.items()}
        states: EncoderOutput = partitioner.put_batch({name: np.stack(own) for name, own in filled.items()})
        return states
