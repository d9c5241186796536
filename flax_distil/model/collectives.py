"""Collective operations between devices that share the weights of a model.

The functions take the name of a mesh axis, or None where there is no such axis and nothing to do. They run
inside ``jax.shard_map`` or ``jax.pmap``. Activations between blocks are equal on all devices of the tensor
axis, and so are the gradients of weights that are not divided.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from flax_distil.core.arrays import Array, Float, Int
from flax_distil.core.param_sharding import ParamSharding

FSDP_GATHERED = "gathered weight"
"""Name of gathered weights for checkpoint policies: they are gathered again and never kept."""


def copy_to_tp(x: Array, axis: str | None) -> Array:
    """Pass equal activations to devices that compute different parts; their gradients are summed."""
    return x if axis is None else _enter(x, axis)


def reduce_from_tp(x: Array, axis: str | None) -> Array:
    """Sum the parts that the devices of an axis computed; each device receives the whole gradient."""
    return x if axis is None else _leave(x, axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _enter(x: Array, axis: str) -> Array:
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _leave(x: Array, axis: str) -> Array:
    return jax.lax.psum(x, axis)


def _same(x: Array, axis: str) -> tuple[Array, None]:
    return x, None


def _sum(x: Array, axis: str) -> tuple[Array, None]:
    return jax.lax.psum(x, axis), None


_enter.defvjp(_same, lambda axis, _, gradient: (jax.lax.psum(gradient, axis),))
_leave.defvjp(_sum, lambda axis, _, gradient: (gradient,))


def fold_in_axis_index(key: Array | None, axis: str | None) -> Array | None:
    """Return a random key that differs between the devices of an axis."""
    return key if key is None or axis is None else jax.random.fold_in(key, jax.lax.axis_index(axis))


def embedding_lookup(
    embedding_VD: Float[Array, "V D"], tokens_BT: Int[Array, "B T"], axis: str | None
) -> Float[Array, "B T D"]:
    """Return rows of an embedding table whose rows may be divided over an axis."""
    if axis is None:
        return jnp.take(embedding_VD, tokens_BT, axis=0)
    rows = embedding_VD.shape[0]
    own_BT = tokens_BT - jax.lax.axis_index(axis) * rows
    is_here_BT1 = ((own_BT >= 0) & (own_BT < rows))[..., None]
    found_BTD = jnp.take(embedding_VD, jnp.clip(own_BT, 0, rows - 1), axis=0)
    return reduce_from_tp(jnp.where(is_here_BT1, found_BTD, 0), axis)


def fsdp_all_gather_outside_layers(params: Any, sharding: ParamSharding) -> Any:
    """Gather the stored pieces of every leaf except those of the stacked layers."""
    return _gather(params, sharding, within=(), skipped=("layers",))


def fsdp_all_gather(layer: Any, sharding: ParamSharding, *, apart: bool = False) -> Any:
    """Gather the stored pieces of one layer, sliced out of its stack or never stacked (``apart``)."""
    within = ("layers", "*") if apart else ("layers",)
    return _gather(layer, sharding, within=within, sliced=0 if apart else 1)


def _gather(
    tree: Any,
    sharding: ParamSharding,
    *,
    within: tuple[str, ...],
    skipped: tuple[str, ...] = (),
    sliced: int = 0,
) -> Any:
    """Gather leaves that lack the first ``sliced`` of the dimensions that the sharding counts."""
    if sharding.gather_axis is None:
        return tree
    dimensions = dict(sharding.gather_dimensions)

    def gather(path: Any, leaf: Array) -> Array:
        names = [name for key in path if (name := _name(key)) is not None]
        if names[0] in skipped:
            return leaf
        dimension = dimensions["/".join([*within, *names])] - sliced
        whole = jax.lax.all_gather(leaf, sharding.gather_axis, axis=dimension, tiled=True)
        return checkpoint_name(whole, FSDP_GATHERED)

    return jax.tree_util.tree_map_with_path(gather, tree)


def _name(key: Any) -> str | None:
    """Return the name in a step of a path; None for a step that NNX adds around a leaf."""
    name = getattr(key, "key", None)
    return name if isinstance(name, str) else None
