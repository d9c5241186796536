"""AdamW, and moments stored in half the memory."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from flax_distil.core.arrays import Array, Float, Params
from flax_distil.core.tree import flatten, unflatten
from flax_distil.distillation.schedules import learning_rate_schedule
from flax_distil.distillation.training_config import OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return clipping and AdamW as one optax transformation over the trainable leaves."""
    moments = optax.scale_by_adam(config.adam_beta1, config.adam_beta2, config.adam_epsilon)
    if config.bfloat16_moments:
        moments = stored_in_bfloat16(moments)
    clip = optax.clip_by_global_norm(config.max_grad_norm) if config.max_grad_norm else optax.identity()
    return optax.chain(
        clip,
        moments,
        optax.add_decayed_weights(config.weight_decay, mask=decayed_leaves),
        optax.scale_by_learning_rate(learning_rate_schedule(config)),
    )


def decayed_leaves(params: Params) -> Params:
    """Return a tree of booleans: True where weight decay applies (not biases, not norms)."""
    return unflatten({path: path.rsplit("/", 1)[-1] not in ("bias", "scale") for path in flatten(params)})


def stored_in_bfloat16(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Keep the float state of ``inner`` in bfloat16 between updates that run in float32.

    Rounded stochastically: a second moment that changes by a thousandth per step is
    below half a unit of bfloat16, so rounding to nearest would freeze it for good.
    """

    def is_float(leaf: Array) -> bool:
        return jnp.issubdtype(leaf.dtype, jnp.floating)

    def store(state: Any, key: Array) -> Any:
        leaves, structure = jax.tree.flatten(state)
        keys = jax.random.split(key, len(leaves))
        stored = [round_stochastically(x, k) if is_float(x) else x for x, k in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(structure, stored)

    def init(params: Params) -> Any:
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16) if is_float(x) else x, inner.init(params))

    def update(gradients: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        wide = jax.tree.map(lambda x: x.astype(jnp.float32) if is_float(x) else x, state)
        updates, wide = inner.update(gradients, wide, params)
        return updates, store(wide, jax.random.key(optax.tree.get(wide, "count")))

    return optax.GradientTransformation(init, update)


def round_stochastically(x: Float[Array, "..."], key: Array) -> Float[Array, "..."]:
    """Round float32 to bfloat16, up or down with the probability that keeps the mean."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    rounded = jax.lax.bitcast_convert_type((bits + noise) & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)
