"""Attention of an encoder layer: the platform's kernel against plain XLA, forward and backward."""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.accelerator.machine import seconds_of
from benchmarks.accelerator.settings import Size
from flax_distil.core.arrays import Array
from flax_distil.model.attention import dot_product_attention

_BATCH, _POSITIONS = 16, 1500


def plain_attention(query: Array, key: Array, value: Array) -> Array:
    """Return ``softmax(q kᵀ / √H) v`` [B, N, T, H] as XLA compiles the formula."""
    scores = jnp.einsum("bnth,bnsh->bnts", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5, axis=-1).astype(value.dtype)
    return jnp.einsum("bnts,bnsh->bnth", weights, value)


def check(size: Size) -> dict[str, Any]:
    """Return times, the largest difference of results, and that of gradients, both in bfloat16."""
    shape = (min(_BATCH, size.windows), size.heads, _POSITIONS, size.width // size.heads)
    keys = jax.random.split(jax.random.key(0), 4)
    query, key, value, slope = (jax.random.normal(k, shape, jnp.bfloat16) for k in keys)
    results: dict[str, Any] = {"shape": list(shape)}
    outputs = {}
    for name, attend in (("kernel", dot_product_attention), ("plain", plain_attention)):
        forward = jax.jit(attend)
        backward = jax.jit(lambda q, k, v, s, attend=attend: jax.vjp(attend, q, k, v)[1](s))
        outputs[name] = (forward(query, key, value), *backward(query, key, value, slope))
        results[name] = {
            "forward": seconds_of(lambda run=forward: run(query, key, value), rounds=size.rounds)["median"],
            "backward": seconds_of(lambda run=backward: run(query, key, value, slope), rounds=size.rounds)[
                "median"
            ],
        }
    for part, ours, theirs in zip(("output", "dq", "dk", "dv"), *outputs.values(), strict=True):
        exact = theirs.astype(jnp.float32)
        scale = float(jnp.abs(exact).max())
        results[f"difference_{part}"] = float(jnp.abs(ours.astype(jnp.float32) - exact).max()) / scale
    return results
