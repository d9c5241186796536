"""``jax.pmap``: every device holds a copy of the whole model, and its own rows of the batch."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from flax_distil.parallel.mesh import DATA_AXIS
from flax_distil.parallel.partitioner import REPLICATED, ROWS, Function, Partitioner


class PmapPartitioner(Partitioner):
    """A partitioner whose arrays have a leading axis of devices, for copies of weights or rows of a batch."""

    def __init__(self, mesh: Mesh):
        """Describe the partitioner over a mesh of data parallel devices."""
        super().__init__(mesh, weight_axes={})
        self._stacked = NamedSharding(mesh, P(mesh.axis_names))
        self._replicated = NamedSharding(mesh, P())

    @property
    def batch_axes(self) -> tuple[str, ...]:
        """See ``Partitioner.batch_axes``."""
        return (DATA_AXIS,)

    def device_put(self, tree: Any, specs: Any = REPLICATED) -> Any:
        """See ``Partitioner.device_put``."""

        def send(leaf: Any) -> jax.Array:
            whole = np.asarray(leaf)
            return jax.make_array_from_callback(
                (self.mesh.size, *whole.shape), self._stacked, lambda _: np.array(whole[None], copy=True)
            )

        return jax.tree.map(send, tree)

    def put_batch(self, batch: Any, spec: P = ROWS) -> Any:
        """See ``Partitioner.put_batch``."""
        axis = len(spec) - 1

        def send(value: np.ndarray) -> jax.Array:
            self.check_rows("a batch", value.shape[axis])
            parts = np.split(value, self.local_batch_shards, axis=axis)
            return jax.make_array_from_process_local_data(self._stacked, np.stack(parts))

        return jax.tree.map(send, batch)

    def local_rows(self, tree: Any) -> Any:
        """See ``Partitioner.local_rows``."""
        return jax.tree.map(lambda leaf: np.concatenate([*_own(leaf)]), tree)

    def device_get(self, tree: Any) -> Any:
        """See ``Partitioner.device_get``."""
        return jax.tree.map(lambda leaf: _own(leaf)[0] if isinstance(leaf, jax.Array) else leaf, tree)

    def unreplicate(self, tree: Any) -> Any:
        """See ``Partitioner.unreplicate``."""

        def join(leaf: jax.Array) -> jax.Array:
            copies = [shard.data[0] for shard in leaf.addressable_shards]
            return jax.make_array_from_single_device_arrays(leaf.shape[1:], self._replicated, copies)

        return jax.tree.map(join, tree)

    def replicate_like(self, tree: Any, whole: Any) -> Any:
        """See ``Partitioner.replicate_like``."""
        return self.device_put(whole)

    def shard_map(self, function: Function, *, in_specs: tuple[Any, ...], out_specs: Any) -> Function:
        """See ``Partitioner.shard_map``."""
        return function

    def _jit(self, function: Function, donate_argnums: tuple[int, ...], out_shardings: Any) -> Function:
        return jax.pmap(function, axis_name=DATA_AXIS, donate_argnums=donate_argnums)


def _own(leaf: jax.Array) -> list[np.ndarray]:
    """Return the part of an array on each device of this process, in the order of devices."""
    shards = sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return [np.asarray(shard.data)[0] for shard in shards]
