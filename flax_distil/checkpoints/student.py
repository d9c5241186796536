"""Make a student from layers of its teacher."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.checkpoints.alignment_heads import renumber_alignment_heads
from flax_distil.checkpoints.checkpoint import Checkpoint
from flax_distil.checkpoints.formats.files import POSITIONS_PER_SECOND
from flax_distil.checkpoints.model_config import check_layer_init
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.core.arrays import Float, Params
from flax_distil.core.errors import InputError
from flax_distil.core.tree import flatten, unflatten


def init_student(
    teacher: Checkpoint,
    *,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
    encoder_layer_indices: Sequence[int] | None = None,
    decoder_layer_indices: Sequence[int] | None = None,
    max_source_positions: int | None = None,
    layer_init: str = "copy",
) -> Checkpoint:
    """Copy some layers of a teacher, or merge them, and copy everything else into a smaller model.

    The decoder of the student has its own buffers, because it is trained and its state is donated. An encoder
    that keeps all its layers is not copied: its leaves are the arrays of the teacher, which must be
    copied before they are trained.

    Args:
        teacher: A loaded checkpoint.
        encoder_layers: Number of encoder layers to copy, which are maximally spaced.
        decoder_layers: Number of decoder layers to copy, which are maximally spaced.
        encoder_layer_indices: Indices of the teacher's encoder layers to copy, instead of their number.
        decoder_layer_indices: Indices of the teacher's decoder layers to copy, instead of their number.
        max_source_positions: Number of encoder positions of the student, of 20 ms each; 750 make a window of
            15 s. By default as many as the teacher has.
        layer_init: How layers become fewer; see :func:`layer_mixture`.

    Returns:
        The student. Its alignment heads are those of the copied layers, renumbered; a student of merged
        decoder layers has none.

    Raises:
        InputError: If a number and a list are both given, if they ask for layers that the teacher lacks, or
            if the teacher has fewer positions, or if layers that are merged are listed.

    Source: arXiv 2311.00430, section 3; ``training/flax/create_student_model.py`` of
        huggingface/distil-whisper.
    """
    config = teacher.config
    merges = layer_init != "copy"
    for side, indices in (("encoder", encoder_layer_indices), ("decoder", decoder_layer_indices)):
        if merges and indices is not None:
            raise InputError(
                f"layer_init {layer_init!r} merges neighboring layers, and {side}_layer_indices "
                f"{list(indices)} lists layers to copy: leave one of them out"
            )
    encoder = _chosen_layers("encoder", config.encoder_layers, encoder_layers, encoder_layer_indices)
    decoder = _chosen_layers("decoder", config.decoder_layers, decoder_layers, decoder_layer_indices)
    is_same = not merges or len(decoder) == config.decoder_layers
    positions = _chosen_positions(config.max_source_positions, max_source_positions)
    student = dataclasses.replace(
        config,
        encoder_layers=len(encoder),
        decoder_layers=len(decoder),
        max_source_positions=positions,
    )
    files = dataclasses.replace(
        teacher.files,
        config={**teacher.files.config, **student.to_huggingface()},
        generation_config=renumber_alignment_heads(
            teacher.files.generation_config, decoder if is_same else ()
        ),
    )
    params = _copy_params(teacher, encoder, decoder, positions, layer_init)
    return Checkpoint(config=student, params=params, files=files)


def allow_empty_text(student: Checkpoint) -> Checkpoint:
    """Return a student that may end a transcript before its first word.

    Published checkpoints list ``<|endoftext|>`` in ``begin_suppress_tokens``, and so write something wherever
    decoding forces ``<|notimestamps|>``. A student that has learned when nobody speaks must not do that.

    Args:
        student: Any checkpoint, with or without weights.
    """
    settings = student.files.generation_config
    suppressed = settings.get("begin_suppress_tokens")
    if not suppressed:
        return student
    end = read_tokenizer(student.files)[0].special.eot
    kept = [token for token in suppressed if token != end]
    files = dataclasses.replace(student.files, generation_config={**settings, "begin_suppress_tokens": kept})
    return dataclasses.replace(student, files=files)


def layer_mixture(layer_init: str, count: int, *, of: int) -> Float[np.ndarray, "L T"]:
    """Return the share of each of the teacher's layers in each of ``count`` layers of a student, float64.

    ``copy`` takes layers that are maximally spaced. The others divide the teacher's layers into contiguous
    groups of nearly equal size, the larger ones first, and merge each group g of layers θ::

        copy      θ[spaced layer]
        average   Σ θ[i] / |g|                                       i in g
        collapse  θ[first of g] + Σ (θ[i] - θ[first of g])           i in g

    Raises:
        InputError: If ``layer_init`` is unknown.

    Source: copy: arXiv 2311.00430, section 3; collapse: LaCo, arXiv 2402.11187; average: the mean
        of checkpoints of model soups, arXiv 2203.05482, applied to the groups of LaCo.
    """
    check_layer_init(layer_init)
    if layer_init == "copy":
        return np.eye(of)[spaced_layers(count, of=of)]
    shares_LT = np.zeros((count, of))
    for layer, group in enumerate(np.array_split(np.arange(of), count)):
        shares_LT[layer, group] = 1.0 / len(group) if layer_init == "average" else 1.0
        if layer_init == "collapse":
            shares_LT[layer, group[0]] = 2.0 - len(group)
    return shares_LT


def _copy_params(
    teacher: Checkpoint, encoder: list[int], decoder: list[int], positions: int, layer_init: str
) -> Params:
    """Copy the parameters of these layers and positions; an encoder that keeps all of them is shared."""
    config = teacher.config
    shares_encoder = (
        encoder == list(range(config.encoder_layers)) and positions == config.max_source_positions
    )
    leaves: dict[str, Any] = {}
    for path, leaf in flatten(teacher.params).items():
        layers = encoder if path.startswith("encoder/layers/") else decoder
        if path.startswith("encoder/") and shares_encoder:
            leaves[path] = leaf
        elif "/layers/" in path:
            leaves[path] = (
                _take_layers(leaf, tuple(layers))
                if layer_init == "copy"
                else _merge_layers(leaf, layer_mixture(layer_init, len(layers), of=leaf.shape[0]))
            )
        elif path == "encoder/position_embedding/embedding":
            leaves[path] = jnp.array(leaf[:positions], copy=True)
        else:
            leaves[path] = jnp.array(leaf, copy=True)
    return unflatten(leaves)


def spaced_layers(count: int, *, of: int) -> list[int]:
    """Return ``count`` maximally spaced indices of ``of`` layers; the last layer is always included.

    ::

        spaced_layers(2, of=32)  ->  [0, 31]
        spaced_layers(3, of=32)  ->  [0, 15, 31]
        spaced_layers(1, of=32)  ->  [31]
    """
    layers = np.linspace(0, of - 1, count, dtype=int).tolist()
    layers[-1] = of - 1
    return layers


def _chosen_layers(side: str, available: int, count: int | None, indices: Sequence[int] | None) -> list[int]:
    """Return the indices of the teacher's layers to copy, in the order of the student."""
    if count is not None and indices is not None:
        raise InputError(
            f"{side}_layers {count} and {side}_layer_indices {list(indices)} contradict each other: "
            "give one of them"
        )
    if indices is not None:
        outside = [index for index in indices if not 0 <= index < available]
        if outside or not indices:
            raise InputError(
                f"{side}_layer_indices {list(indices)} asks for layers that the teacher lacks: "
                f"expected at least one, each from 0 to {available - 1}"
            )
        return list(indices)
    if count is None:
        return list(range(available))
    if not 1 <= count <= available:
        raise InputError(f"{side}_layers is {count}: expected 1 to {available}, as many as the teacher has")
    return spaced_layers(count, of=available)


def _chosen_positions(available: int, count: int | None) -> int:
    """Return the number of encoder positions of the student."""
    if count is None:
        return available
    if not 1 <= count <= available or count % POSITIONS_PER_SECOND:
        raise InputError(
            f"max_source_positions is {count}: expected whole seconds of {POSITIONS_PER_SECOND} positions, "
            f"at most the {available} of the teacher"
        )
    return count


def _take_layers(leaf: jax.Array, layers: tuple[int, ...]) -> jax.Array:
    """Return new buffers with the given layers of a stacked leaf, and with its sharding."""
    if layers == tuple(range(leaf.shape[0])):
        return jnp.array(leaf, copy=True)
    return jax.device_put(np.asarray(leaf)[list(layers)], leaf.sharding)  # nothing to compile


def _merge_layers(leaf: jax.Array, shares_LT: Float[np.ndarray, "L T"]) -> jax.Array:
    """Return new buffers with mixtures of the layers of a stacked leaf, summed in float64, in its type."""
    merged = np.tensordot(shares_LT, np.asarray(leaf).astype(np.float64), axes=1)
    return jax.device_put(merged.astype(leaf.dtype), leaf.sharding)
