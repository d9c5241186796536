"""Products of matrices at the shapes of the frozen encoder: int8 against bfloat16."""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.accelerator.machine import seconds_of
from benchmarks.accelerator.settings import Size
from flax_distil.core.arrays import Array

_REPEATS = 20
"""Products of one program, so that starting it does not count."""


def check(size: Size) -> dict[str, Any]:
    """Return TFLOP/s (or TOP/s) of both feed-forward products, with the conversion to int8 and without it."""
    rows = 1500 * min(16, size.windows)
    results: dict[str, Any] = {"rows": rows}
    for name, (inner, outer) in {
        "fc1": (size.width, 4 * size.width),
        "fc2": (4 * size.width, size.width),
    }.items():
        x = jax.random.normal(jax.random.key(0), (rows, inner), jnp.bfloat16)
        w = jax.random.normal(jax.random.key(1), (inner, outer), jnp.bfloat16)
        operations = 2.0 * rows * inner * outer * _REPEATS
        for kind, product, given in (
            ("bfloat16", _bfloat16, (x, w)),
            ("int8", _int8, (_quantized(x, 1)[0], _quantized(w, 0)[0])),
            ("int8_with_conversion", _converted, (x, *_quantized(w, 0))),
        ):
            run = jax.jit(lambda *args, product=product: _repeat(product, *args))
            seconds = seconds_of(lambda run=run, given=given: run(*given), rounds=size.rounds)["median"]
            results[f"{name}_{kind}"] = operations / seconds / 1e12
    return results


def _repeat(product: Any, x: Array, *rest: Array) -> Array:
    """Do the product on the rows rolled by one each time, so that none of them can be left out."""

    def body(number: int, total: Array) -> Array:
        return total + product(jnp.roll(x, number, axis=0), *rest)[:8, :8].astype(jnp.float32)

    return jax.lax.fori_loop(0, _REPEATS, body, jnp.zeros((8, 8), jnp.float32))


def _bfloat16(x: Array, w: Array) -> Array:
    return jax.lax.optimization_barrier(jnp.dot(x, w))


def _int8(x: Array, w: Array) -> Array:
    return jax.lax.optimization_barrier(jnp.dot(x, w, preferred_element_type=jnp.int32))


def _quantized(x: Array, axis: int) -> tuple[Array, Array]:
    """Return int8 values and the scales along the other axis: symmetric, the largest value is 127."""
    scale = jnp.abs(x).max(axis=axis, keepdims=True).astype(jnp.float32) / 127
    return jnp.round(x / scale).astype(jnp.int8), scale


def _converted(x: Array, w: Array, w_scale: Array) -> Array:
    quantized, scale = _quantized(x, 1)
    return (_int8(quantized, w) * scale * w_scale).astype(jnp.bfloat16)
