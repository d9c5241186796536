"""Run a pure function of one device on all devices, with ``jit`` or with ``pmap``.

A function is written once, for the part of the batch and of the weights that one device holds::

    encode = partitioner.jit(functools.partial(encode_batch, config), in_specs=(specs, ROWS), out_specs=ROWS)

Where the rest of a computation works on whole arrays, :meth:`Partitioner.shard_map` is used inside it::

    gradients = partitioner.shard_map(compute_gradients, in_specs=(specs, ROWS), out_specs=specs)

    def train(state, batch):
        return update(state, gradients(state.params, batch))

    step = partitioner.jit(train, donate_argnums=(0,))

The arrays of a batch are divided along their axis of rows, which is the first axis (``ROWS``), or the second
one after the axis of micro-batches (``MICRO_BATCHES``).
"""

import abc
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.parallel.mesh import BATCH_AXES
from flax_distil.parallel.rules import weight_specs

Function = Callable[..., Any]

_MAX_COMPILED = 128
"""Maximum number of compiled functions that a partitioner keeps; the least recently used one is dropped."""


ROWS = P(BATCH_AXES)
"""Spec of arrays whose first axis is B: each device has its own rows."""

MICRO_BATCHES = P(None, BATCH_AXES)
"""Spec of arrays whose first axis counts micro-batches: each device has its own rows of each of them."""

REPLICATED = P()


class Partitioner(abc.ABC):
    """Places arrays on devices, and runs functions of one device on all devices of all processes.

    Attributes:
        mesh: Mesh of all devices; see ``flax_distil.parallel.mesh``.
        weight_axes: Sizes of the mesh axes that divide weights.
        batch_shards: Number of parts into which the global batch is divided.
        local_batch_shards: Number of these parts that this process provides.
        shard_index: Index of the slice of the data that this process reads.
        shard_count: Number of slices of the data; processes of one tensor group read the same slice.
    """

    def __init__(self, mesh: Mesh, *, weight_axes: Mapping[str, int], shard_vocabulary: bool = True):
        """Describe the partitioner; nothing is compiled."""
        self.mesh = mesh
        self.weight_axes = dict(weight_axes)
        self._shard_vocabulary = shard_vocabulary
        self._compiled: dict[Any, Function] = {}
        self.batch_shards = mesh.shape["data"] * mesh.shape["fsdp"]
        parts = _parts_by_process(mesh)
        own = parts.get(jax.process_index(), ())
        slices = sorted(set(parts.values()))
        if sum(map(len, slices)) != self.batch_shards:
            raise InputError(
                f"mesh {dict(mesh.shape)} spreads a part of the batch over processes unevenly: choose a "
                "tensor size that divides the devices of a process, or is a multiple of them"
            )
        self.local_batch_shards = len(own)
        self.shard_index, self.shard_count = (slices.index(own) if own else 0), len(slices)

    def weight_specs(self, shapes: Params, axes: tuple[str, ...] = ("fsdp", "tensor")) -> dict[str, Any]:
        """Return how the weights of a model, or of a part of one, are divided over these axes of the mesh.

        Raises:
            InputError: If an axis does not divide a dimension.
        """
        used = {axis: size for axis, size in self.weight_axes.items() if axis in axes}
        return weight_specs(shapes, used, vocabulary=self._shard_vocabulary)

    @abc.abstractmethod
    def device_put(self, tree: Any, specs: Any = REPLICATED) -> Any:
        """Copy arrays, which every process holds as a whole, to the devices.

        Args:
            tree: Arrays on the host, or on devices of this process.
            specs: A tree of ``PartitionSpec`` with the same structure, or one spec for all leaves.
        """

    @abc.abstractmethod
    def put_batch(self, batch: Any, spec: P = ROWS) -> Any:
        """Copy the rows of a batch that this process has to its devices.

        Args:
            batch: A tree of arrays on the host.
            spec: ``ROWS`` or ``MICRO_BATCHES``, for all arrays.

        Raises:
            InputError: If the rows cannot be divided over the devices.
        """

    @abc.abstractmethod
    def local_rows(self, tree: Any) -> Any:
        """Wait for results with spec ``ROWS``, and return this process's rows in order as numpy arrays."""

    @abc.abstractmethod
    def device_get(self, tree: Any) -> Any:
        """Wait for arrays, and return them as whole numpy arrays on every process."""

    @abc.abstractmethod
    def unreplicate(self, tree: Any) -> Any:
        """Return global arrays in the form of a checkpoint, without a copy where possible."""

    @abc.abstractmethod
    def replicate_like(self, tree: Any, whole: Any) -> Any:
        """Invert :meth:`unreplicate`: return ``whole`` placed on devices like its original ``tree``."""

    @abc.abstractmethod
    def shard_map(self, function: Function, *, in_specs: tuple[Any, ...], out_specs: Any) -> Function:
        """Return a function of whole arrays that runs ``function`` on the pieces of every device.

        Args:
            function: Pure function, which sums over the ``batch_axes`` of the partitioner itself.
            in_specs: Specs of each argument: a tree of ``PartitionSpec``, or one for all its leaves.
            out_specs: Specs of the results: ``ROWS``, or a tree of ``PartitionSpec``.
        """

    def jit(
        self,
        function: Function,
        *,
        in_specs: tuple[Any, ...] | None = None,
        out_specs: Any = None,
        donate_argnums: tuple[int, ...] = (),
        out_shardings: Any = None,
    ) -> Function:
        """Return a function that is compiled for all devices when it is first called.

        Equal arguments give the same compiled function, so callers need no cache of their own. Two
        ``functools.partial`` of one function are equal if the arguments that they bind are equal (and
        hashable).

        Args:
            function: With ``in_specs``, a function of the pieces of one device, as for :meth:`shard_map`;
                without, a function of whole arrays.
            in_specs: Specs of each argument of a function of one device.
            out_specs: Specs of its results.
            donate_argnums: Positions of the arguments whose memory the results may reuse.
            out_shardings: A tree of ``PartitionSpec`` for the results; None lets the compiler choose.
        """
        key = (
            _identity(function), *map(_as_key, (in_specs, out_specs, out_shardings)), donate_argnums
        )  # fmt: skip
        compiled = self._compiled.pop(key, None)
        if compiled is None:
            if in_specs is not None:
                function = self.shard_map(function, in_specs=in_specs, out_specs=out_specs)
            compiled = self._jit(function, donate_argnums, out_shardings)
        self._compiled[key] = compiled
        while len(self._compiled) > _MAX_COMPILED:
            del self._compiled[next(iter(self._compiled))]
        return compiled

    @abc.abstractmethod
    def _jit(self, function: Function, donate_argnums: tuple[int, ...], out_shardings: Any) -> Function:
        """Compile a function of whole arrays."""

    @property
    def batch_axes(self) -> tuple[str, ...]:
        """Mesh axes over which a function of one device must sum to cover the whole batch."""
        return BATCH_AXES

    def check_rows(self, name: str, rows: int) -> None:
        """Raise ``InputError`` unless the rows can be divided over the devices of this process."""
        if rows % self.local_batch_shards:
            raise InputError(
                f"{rows} rows of {name} cannot be divided over the {self.local_batch_shards} parts of the "
                "batch that this process holds: choose a multiple"
            )


def _identity(function: Any) -> Any:
    """Return a key that identifies a function, including the arguments that a ``functools.partial`` binds.

    Such an argument may be a ``functools.partial`` itself.
    """
    if isinstance(function, functools.partial):
        arguments = tuple(map(_identity, function.args))
        return _identity(function.func), arguments, tuple(sorted(function.keywords.items()))
    return function


def _as_key(specs: Any) -> Any:
    """Return a tree of specs in a hashable form."""
    leaves, structure = jax.tree.flatten(specs, is_leaf=lambda node: isinstance(node, P))
    return tuple(leaves), structure


def _parts_by_process(mesh: Mesh) -> dict[int, tuple[int, ...]]:
    """Return the indices of the parts of the batch that the devices of each process hold."""
    parts: dict[int, set[int]] = {}
    for (data, fsdp, _), device in np.ndenumerate(mesh.devices):
        parts.setdefault(device.process_index, set()).add(data * mesh.shape["fsdp"] + fsdp)
    return {process: tuple(sorted(held)) for process, held in parts.items()}
