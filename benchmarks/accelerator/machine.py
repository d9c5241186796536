"""What every part of the check needs: the device, random weights on it, and timing."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flax_distil.core.arrays import Params


def describe() -> dict[str, Any]:
    """Return the device and the versions of what computes."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
    }


def peak_memory() -> int | None:
    """Return the most bytes that were allocated on the first device; None where it does not tell."""
    statistics_of_device = jax.devices()[0].memory_stats() or {}
    return statistics_of_device.get("peak_bytes_in_use")


def random_params(shapes: Params, dtype: str, *, seed: int = 0) -> Params:
    """Return weights from normal(0.02), made on the device, one leaf at a time."""
    leaves, tree = jax.tree.flatten(shapes)
    draw = jax.jit(
        lambda key, shape: (0.02 * jax.random.normal(key, shape, jnp.bfloat16)).astype(dtype),
        static_argnums=1,
    )
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        tree, [draw(key, tuple(leaf.shape)) for key, leaf in zip(keys, leaves, strict=True)]
    )


def seconds_of(run: Callable[[], Any], *, rounds: int) -> dict[str, float]:
    """Time a function whose results are waited for.

    Returns:
        ``first`` call with its compilation, and the ``median``, ``fastest`` and ``slowest`` of the others.
    """

    def once() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run())
        return time.perf_counter() - start

    first, rest = once(), [once() for _ in range(rounds)]
    return {
        "first": first,
        "median": statistics.median(rest),
        "fastest": min(rest),
        "slowest": max(rest),
    }


class Compilations:
    """Counts programs that XLA compiles, from the moment it is made."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, _: float, **__: Any) -> None:
        self.count += event == "/jax/core/compile/backend_compile_duration"
