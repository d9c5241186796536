"""Alignment heads: the cross-attention heads whose weights follow the speech in time.

They are stored in ``generation_config.json`` as ``[decoder layer, head]`` and used for word timestamps. If
they name a layer that a student lacks, programs that read the file crash.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flax_distil.model.config import WhisperConfig

_KEY = "alignment_heads"


def renumber_alignment_heads(generation_config: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """Renumber the alignment heads of a teacher for a student that has some of its decoder layers.

    ::

        teacher heads  [[1, 0], [3, 2], [3, 4]]      student layers 0, 1 = teacher layers 0, 3
        student heads           [[1, 2], [1, 4]]

    Args:
        generation_config: Generation config of the teacher.
        layers: Index of the teacher's layer that each layer of the student copies.

    Returns:
        A copy with the heads of copied layers renumbered and the others left out. The key is left out if no
        head remains, so that programs that read the file choose heads themselves.
    """
    kept = [
        [student, head]
        for layer, head in generation_config.get(_KEY) or ()
        for student, copied in enumerate(layers)
        if copied == layer
    ]
    return with_alignment_heads(generation_config, kept)


def valid_alignment_heads(generation_config: Mapping[str, Any], config: WhisperConfig) -> dict[str, Any]:
    """Return a copy of a generation config without alignment heads that the model does not have."""
    kept = [
        [layer, head]
        for layer, head in generation_config.get(_KEY) or ()
        if 0 <= layer < config.decoder_layers and 0 <= head < config.decoder_attention_heads
    ]
    return with_alignment_heads(generation_config, kept)


def with_alignment_heads(
    generation_config: Mapping[str, Any], heads: Iterable[Sequence[int]]
) -> dict[str, Any]:
    """Return a copy of a generation config with these alignment heads; without the key if there are none."""
    others = {key: value for key, value in generation_config.items() if key != _KEY}
    pairs = [list(pair) for pair in heads]
    return others | ({_KEY: pairs} if pairs else {})
