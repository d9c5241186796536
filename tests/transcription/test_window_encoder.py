"""States of windows that are tried again come from the batches in which they were encoded."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.sequential.recording import SequentialRecording
from flax_distil.transcription.sequential.window_encoder import WindowEncoder


class Part(SequentialRecording):
    """Stands for a part whose features are its number."""

    attempt = property(lambda self: self.failed)

    def __init__(self, number: int):
        self.number, self.failed = number, 0


class Decoder(WhisperGenerator):
    """Encodes features to themselves, and counts the rows."""

    partitioner = types.SimpleNamespace(
        local_rows=lambda tree: jax.tree.map(np.asarray, tree),
        put_batch=lambda tree: jax.tree.map(jnp.asarray, tree),
    )

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode_features(self, mel_BRM: np.ndarray) -> Any:
        self.encoded.append(len(mel_BRM))
        return {"encoder_out_BSD": jnp.asarray(mel_BRM)}


def rows_for(windows: int) -> int:
    return 1 << (windows - 1).bit_length()


def features(parts: Any, rows: int) -> np.ndarray:
    mel = np.zeros((rows, 1, 1), np.float32)
    mel[: len(parts), 0, 0] = [part.number for part in parts]
    return mel


@pytest.mark.parametrize(
    ("failed", "new", "encoded"),
    [
        ((0, 1, 2), 0, []),  # the same batch again
        ((0, 1), 0, []),  # fewer rows
        ((1,), 0, []),
        ((0, 2), 3, [4]),  # new ones beside them
        ((), 2, [2]),
    ],
)
def test_windows_are_encoded_once(failed, new, encoded):
    generator, parts = Decoder(), [Part(number) for number in (1, 2, 3)]
    states = WindowEncoder(generator, features=features, rows_for=rows_for)
    first = states.encode(parts)
    for index in failed:
        parts[index].failed = 1
    states.keep(parts, first)
    generator.encoded.clear()
    batch = [*(parts[index] for index in failed), *(Part(10 + number) for number in range(new))]
    second = states.encode(batch)["encoder_out_BSD"]
    assert len(second) == rows_for(len(batch))
    assert second[: len(batch), 0, 0].tolist() == [part.number for part in batch]
    assert generator.encoded == encoded


def test_windows_of_several_batches_are_tried_again_together():
    generator, parts = Decoder(), [Part(number) for number in (1, 2, 3, 4)]
    states = WindowEncoder(generator, features=features, rows_for=rows_for)
    for two in (parts[:2], parts[2:]):
        found = states.encode(two)
        two[1].failed = 1
        states.keep(two, found)
    both = [parts[3], parts[1]]
    assert states.encode(both)["encoder_out_BSD"][:, 0, 0].tolist() == [4, 2]
    assert generator.encoded == [2, 2]
