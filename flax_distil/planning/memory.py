"""Read how much HBM a compiled program takes on each chip, and for what."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """HBM of one chip while a program runs, in bytes.

    Attributes:
        arguments: Weights, state and batch, with the padding with which the chip stores them.
        outputs: Results that are not stored in the place of an argument.
        temporaries: Activations, gradients and copies at their maximum.
        code: The program itself.
        resident: Arrays that the job keeps on the chip although this program does not use them.
        shares: Parts of ``arguments`` and ``resident`` by name, and the padding.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int
    resident: int = 0
    shares: Mapping[str, int]

    @property
    def total(self) -> int:
        """Sum of all parts, which has to fit into the HBM."""
        return self.arguments + self.outputs + self.temporaries + self.code + self.resident


def memory_use(
    compiled: jax.stages.Compiled, trees: Mapping[str, Any], *, resident: Mapping[str, Any] | None = None
) -> MemoryUse:
    """Read the compiler's memory allocation, and divide that of the arguments into named parts.

    Args:
        compiled: The compiled program.
        trees: Arguments of the program by name, as ``ShapeDtypeStruct`` leaves with shardings.
        resident: Other arrays that stay on the chip, by name, in the same form.
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
    """Return the bytes of all leaves that one device holds, without padding."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape)
        * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
