"""``jax.jit`` with named shardings: data parallel, fully sharded, tensor parallel, and combinations."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from flax_distil.parallel.partitioner import REPLICATED, ROWS, Function, Partitioner


class JitPartitioner(Partitioner):
    """A partitioner for whole arrays with named shardings; functions of one device run in ``shard_map``.

    It does not use automatic partitioning. A function of one device sums its float32 sums and gradients over
    devices itself, once, so the numbers do not depend on how a compiler divides the work.
    """

    def __init__(self, mesh: Mesh, *, shard_vocabulary: bool = True):
        """Describe the partitioner; nothing is compiled."""
        sizes = {axis: mesh.shape[axis] for axis in ("fsdp", "tensor")}
        super().__init__(mesh, weight_axes=sizes, shard_vocabulary=shard_vocabulary)
        self._whole = jax.jit(lambda leaf: leaf, out_shardings=NamedSharding(mesh, P()))

    def sharding(self, spec: P) -> NamedSharding:
        """Return the named sharding of an array with this spec."""
        return NamedSharding(self.mesh, spec)

    def device_put(self, tree: Any, specs: Any = REPLICATED) -> Any:
        """See ``Partitioner.device_put``."""

        def send(spec: P, leaf: Any) -> jax.Array:
            whole = np.asarray(leaf)
            return jax.make_array_from_callback(
                whole.shape, self.sharding(spec), lambda index: np.array(whole[index], copy=True)
            )

        return _map_with_specs(send, specs, tree)

    def put_batch(self, batch: Any, spec: P = ROWS) -> Any:
        """See ``Partitioner.put_batch``."""
        sharding = self.sharding(spec)

        def send(value: np.ndarray) -> jax.Array:
            self.check_rows("a batch", value.shape[len(spec) - 1])
            return jax.make_array_from_process_local_data(sharding, value)

        return jax.tree.map(send, batch)

    def local_rows(self, tree: Any) -> Any:
        """See ``Partitioner.local_rows``."""
        return jax.tree.map(_local_rows, _started(tree))

    def device_get(self, tree: Any) -> Any:
        """See ``Partitioner.device_get``."""

        def fetch(leaf: Any) -> np.ndarray:
            addressable = (
                not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated
            )
            return np.asarray(leaf if addressable else self._whole(leaf))

        return jax.tree.map(fetch, _started(tree))

    def unreplicate(self, tree: Any) -> Any:
        """See ``Partitioner.unreplicate``."""
        return tree

    def replicate_like(self, tree: Any, whole: Any) -> Any:
        """See ``Partitioner.replicate_like``."""
        return whole

    def shard_map(self, function: Function, *, in_specs: tuple[Any, ...], out_specs: Any) -> Function:
        """See ``Partitioner.shard_map``."""

        mapped = jax.shard_map(
            function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )
        mapped.__name__ = getattr(function, "func", function).__name__  # shown in profiles
        return mapped

    def _jit(self, function: Function, donate_argnums: tuple[int, ...], out_shardings: Any) -> Function:
        if out_shardings is None:
            return jax.jit(function, donate_argnums=donate_argnums)
        shardings = jax.tree.map(self.sharding, out_shardings, is_leaf=lambda node: isinstance(node, P))
        return jax.jit(function, donate_argnums=donate_argnums, out_shardings=shardings)

    def describe(self, tree: Any, specs: Any = REPLICATED) -> Any:
        """Return ``ShapeDtypeStruct`` leaves with the shardings of ``device_put``; allocates nothing."""

        def shape(spec: P, leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.sharding(spec))

        return _map_with_specs(shape, specs, tree)


def _map_with_specs(function: Callable[[P, Any], Any], specs: Any, tree: Any) -> Any:
    """Apply ``function(spec, leaf)`` to all leaves; one spec may stand for all leaves below it."""
    return jax.tree.map(
        lambda spec, below: jax.tree.map(lambda leaf: function(spec, leaf), below),
        specs,
        tree,
        is_leaf=lambda node: isinstance(node, P),
    )


def _started(tree: Any) -> Any:
    """Start copying all leaves to the host, so that the copies run while the first one is waited for."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array):
            for shard in leaf.addressable_shards:
                shard.data.copy_to_host_async()
    return tree


def _local_rows(leaf: jax.Array) -> np.ndarray:
    """Return the rows that the devices of this process hold, without repetitions."""
    parts: dict[int, np.ndarray] = {}
    for shard in leaf.addressable_shards:
        first = shard.index[0].start or 0
        if first not in parts:
            parts[first] = np.asarray(shard.data)
    return np.concatenate([parts[first] for first in sorted(parts)])
