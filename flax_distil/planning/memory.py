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
        arguments: Weights, state and batch, padded as the chip stores them.
        outputs: Results that take no argument's place.
        temporaries: Activations, gradients and copies at their highest.
        code: The program.
        resident: Kept on the chip by the job, although this program does not take it.
        shares: Parts of ``arguments`` (and ``resident``) by name, and what padding adds.
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
        compiled: The program.
        trees: Its arguments by name, as ``ShapeDtypeStruct`` leaves with shardings.
        resident: What stays on the chip besides, likewise.
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
