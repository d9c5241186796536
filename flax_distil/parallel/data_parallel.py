"""Data parallelism: every device runs the step on its part of the batch and they add up.

``shard_map`` rather than automatic partitioning: the step adds its float32 sums and
gradients across devices itself, once, so the numbers do not depend on how a compiler
splits the work, and the packing of label tokens stays within a device.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA_AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a one-dimensional mesh over all local devices (or the given ones)."""
    return Mesh(np.asarray(devices or jax.local_devices()), (DATA_AXIS,))


def batch_spec(name: str) -> P:
    """Return how a batch array is laid out, read off its name: axis B is split, K never.

    Raises:
        ValueError: if the name has no axis letters with a B.
    """
    letters = name.rsplit("_", 1)[-1]
    if "B" not in letters:
        raise ValueError(f"batch array {name!r} has no axis B in its name")
    return P(*(DATA_AXIS if letter == "B" else None for letter in letters[: letters.index("B") + 1]))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Send a host batch to the devices, each its own rows."""
    return {
        name: jax.device_put(value, NamedSharding(mesh, batch_spec(name))) for name, value in batch.items()
    }


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Send a tree to every device whole."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def over_data(
    function: Callable[..., Any],
    mesh: Mesh,
    *,
    batch_argument: int,
    arguments: int,
    donate: tuple[int, ...] = (),
    results_split: bool = False,
) -> Callable[..., Any]:
    """Jit a function of ``arguments`` trees, of which one is a batch, over the devices.

    Args:
        function: pure; sums its results over axis ``DATA_AXIS`` itself, so that they are
            the same on every device (unless ``results_split``).
        mesh: of :func:`data_mesh`.
        batch_argument: position of the batch, a dictionary of arrays named by their axes.
        arguments: how many positional arguments there are; the others are replicated.
        donate: positions of arguments whose memory the result may take.
        results_split: the results have an axis B in front and stay split over it.
    """

    def call(*args: Any) -> Any:
        specs: list[Any] = [P()] * arguments
        specs[batch_argument] = {name: batch_spec(name) for name in args[batch_argument]}
        mapped = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=tuple(specs),
            out_specs=P(DATA_AXIS) if results_split else P(),
            check_vma=False,
        )
        return mapped(*args)

    return jax.jit(call, donate_argnums=donate)
