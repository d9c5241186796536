"""Compare the tensors of a checkpoint with its configuration, before their values are read."""

import hashlib
from collections.abc import Sequence

import numpy as np

from flax_distil.checkpoints.formats.mapping import (
    IGNORED_TENSORS,
    TIED_PROJECTION,
    TOKEN_EMBEDDING,
    tensor_locations,
)
from flax_distil.checkpoints.formats.reader import CheckpointReader
from flax_distil.core.errors import InputError
from flax_distil.core.fields import one_line
from flax_distil.model.config import WhisperConfig

_FLOATING = ("float64", "float32", "float16", "bfloat16")

_ENCODER_TENSORS = "model.encoder."

_MOST_NAMED = 20  # maximum number of tensors of a kind that one message names


def has_no_encoder(source: CheckpointReader) -> bool:
    """Return whether a checkpoint is a decoder only, as ``WhisperForCausalLM`` of transformers saves it."""
    return TOKEN_EMBEDDING in source.tensors and not any(
        name.startswith(_ENCODER_TENSORS) for name in source.tensors
    )


def check_tensors(source: CheckpointReader, config: WhisperConfig, *, decoder_only: bool = False) -> None:
    """Compare the names and shapes of a checkpoint's tensors with its configuration; values are not read.

    Args:
        source: The checkpoint.
        config: Architecture of the model.
        decoder_only: Whether the checkpoint has no encoder.

    Raises:
        InputError: If tensors are missing, unexpected or of the wrong shape; the message names all of them.
    """
    found = source.tensors
    _check_table_sizes(source, config)
    locations = {
        name: place
        for name, place in tensor_locations(config).items()
        if not (decoder_only and name.startswith(_ENCODER_TENSORS))
    }
    wanted = {name: spec for name, spec in found.items() if name in locations}
    missing = [name for name in locations if name not in found]
    unexpected = [name for name in found if name not in locations and name not in IGNORED_TENSORS]
    unfit = [
        f"{name} (expected {list(locations[name].shape)}, got {list(spec.shape)})"
        for name, spec in wanted.items()
        if spec.shape != locations[name].shape
    ]
    unreadable = [f"{name} ({spec.dtype})" for name, spec in wanted.items() if spec.dtype not in _FLOATING]
    if TIED_PROJECTION in found and found[TIED_PROJECTION].dtype not in _FLOATING:
        unreadable.append(f"{TIED_PROJECTION} ({found[TIED_PROJECTION].dtype})")
    problems = [
        f"{len(names)} {what}: {_listed(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", unfit),
            ("not of a floating-point type", unreadable),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"the tensors of {source.origin} do not fit its configuration "
            f"(is config.json that of these weights?): {'; '.join(problems)}"
        )


def _check_table_sizes(source: CheckpointReader, config: WhisperConfig) -> None:
    """Compare the sizes of the embedding tables first, because shapes of a far too large model take long."""
    for name, size in (
        (TOKEN_EMBEDDING, config.vocab_size),
        ("model.encoder.embed_positions.weight", config.max_source_positions),
        ("model.decoder.embed_positions.weight", config.max_target_positions),
    ):
        spec, expected = source.tensors.get(name), (size, config.d_model)
        if spec is not None and spec.shape != expected:
            raise InputError(
                f"{name} of {source.origin} has shape {list(spec.shape)}, but its configuration asks for "
                f"{list(expected)}: is config.json that of these weights?"
            )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(one_line, names[:_MOST_NAMED])) + more


def check_tied_projection(source: CheckpointReader) -> None:
    """Raise ``InputError`` if the checkpoint has an output projection that is not its token embedding."""
    if TIED_PROJECTION in source.tensors and not _are_equal(source, TIED_PROJECTION, TOKEN_EMBEDDING):
        raise InputError(
            f"{TIED_PROJECTION} of {source.origin} differs from {TOKEN_EMBEDDING}: "
            "Whisper ties the two, and this model has no separate output projection"
        )


def _are_equal(source: CheckpointReader, first: str, second: str) -> bool:
    """Return whether two tensors have the same values; equal bits are found with one of them in memory."""
    digests = {
        hashlib.blake2b(np.ascontiguousarray(source.read(name)).reshape(-1).view(np.uint8).data).digest()
        for name in (first, second)
    }
    same_type = source.tensors[first] == source.tensors[second]
    return (same_type and len(digests) == 1) or np.array_equal(source.read(first), source.read(second))
