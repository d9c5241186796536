"""Alignment heads: the cross-attention heads whose weights follow the speech in time.

They are kept in ``generation_config.json`` as ``[decoder layer, head]`` and used for word
timestamps. A student that lacks a layer they name makes its readers crash.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax_distil.model import WhisperConfig

_KEY = "alignment_heads"


def renumber_alignment_heads(generation_config: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """Follow the decoder layers that were copied into a student.

    ::

        teacher heads  [[1, 0], [3, 2], [3, 4]]      student layers 0, 1 = teacher layers 0, 3
        student heads           [[1, 2], [1, 4]]

    Args:
        generation_config: the teacher's.
        layers: for each student layer, the teacher layer it copies.

    Returns:
        A copy with the heads of copied layers renumbered and the others left out; without the
        key if none remain, so that readers fall back to their own choice.
    """
    kept = [
        [student, head]
        for layer, head in generation_config.get(_KEY) or ()
        for student, copied in enumerate(layers)
        if copied == layer
    ]
    return _with_heads(generation_config, kept)


def valid_alignment_heads(generation_config: Mapping[str, Any], config: WhisperConfig) -> dict[str, Any]:
    """Return a copy without alignment heads that the model does not have."""
    kept = [
        [layer, head]
        for layer, head in generation_config.get(_KEY) or ()
        if 0 <= layer < config.decoder_layers and 0 <= head < config.decoder_attention_heads
    ]
    return _with_heads(generation_config, kept)


def _with_heads(generation_config: Mapping[str, Any], heads: list[list[int]]) -> dict[str, Any]:
    others = {key: value for key, value in generation_config.items() if key != _KEY}
    return others | ({_KEY: heads} if heads else {})
