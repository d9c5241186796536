"""Alignment heads: the cross-attention heads whose weights follow the speech in time.

They are kept in ``generation_config.json`` as ``[decoder layer, head]`` and used for word
timestamps. A student that lacks a layer they name makes its readers crash.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flax_distil.model.config import WhisperConfig

_KEY = "alignment_heads"


def renumber_alignment_heads(generation_config: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """Follow the decoder layers that were copied into a student.

    ::

        teacher heads  [[1, 0], [3, 2], [3, 4]]      student layers 0, 1 = teacher layers 0, 3
        student heads           [[1, 2], [1, 4]]

    Args:
        generation_config: The teacher's.
        layers: For each student layer, the teacher layer it copies.

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
    return with_alignment_heads(generation_config, kept)


def valid_alignment_heads(generation_config: Mapping[str, Any], config: WhisperConfig) -> dict[str, Any]:
    """Return a copy without alignment heads that the model does not have."""
    kept = [
        [layer, head]
        for layer, head in generation_config.get(_KEY) or ()
        if 0 <= layer < config.decoder_layers and 0 <= head < config.decoder_attention_heads
    ]
    return with_alignment_heads(generation_config, kept)


def with_alignment_heads(
    generation_config: Mapping[str, Any], heads: Iterable[Sequence[int]]
) -> dict[str, Any]:
    """Return a copy that names these heads; without the key if there are none."""
    others = {key: value for key, value in generation_config.items() if key != _KEY}
    pairs = [list(pair) for pair in heads]
    return others | ({_KEY: pairs} if pairs else {})
