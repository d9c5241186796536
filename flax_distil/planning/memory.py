"""How much HBM a compiled program takes on each chip, and what for."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """HBM of one chip while a program runs, in bytes.

    Attributes:
        arguments: weights, state and batch, padded as the chip stores them.
        outputs: results that take no argument's place.
        temporaries: activations, gradients and copies at their highest.
        code: the program.
        resident: kept on the chip by the job, although this program does not take it.
        shares: parts of ``arguments`` (and ``resident``) by name, and what padding adds.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int
    resident: int = 0
    shares: Mapping[str, int]

    @property
    def total(self) -> int:
        """What has to fit."""
        return self.arguments + self.outputs + self.temporaries + self.code + self.resident


def memory_use(
    compiled: jax.stages.Compiled, trees: Mapping[str, Any], *, resident: Mapping[str, Any] | None = None
) -> MemoryUse:
    """Read the compiler's allocation and divide its arguments.

    Args:
        compiled: the program.
        trees: its arguments by name, as ``ShapeDtypeStruct`` leaves with shardings.
        resident: what stays on the chip besides, likewise.
    """
    found = compiled.memory_analysis()
    if found is None:
        raise RuntimeError("the compiler gave no memory analysis")
    shares = {name: bytes_per_chip(tree) for name, tree in trees.items()}
    besides = {name: bytes_per_chip(tree) for name, tree in (resident or {}).items()}
    padding = found.argument_size_in_bytes - sum(shares.values())
    return MemoryUse(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        code=found.generated_code_size_in_bytes,
        resident=sum(besides.values()),
        shares={**shares, **besides, "padding": max(0, padding)},
    )


def bytes_per_chip(tree: Any) -> int:
    """Add up the pieces of all leaves that one device holds, without padding."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape)
        * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
