"""A compiled program that is made for each shape of its batch, ahead of its first call if asked to."""

from collections.abc import Mapping
from typing import Any

import jax

from flax_distil.parallel.partitioner import Function


class ShapedProgram:
    """Calls the executable of a program for the shapes of its last argument, a batch.

    ``jax.jit`` compiles again what was compiled ahead of time; here it is kept and called.

    Attributes:
        program: the program, of ``Partitioner.jit``.
        compiled: the executables so far, by the shapes of the batch.
    """

    def __init__(self, program: Function):
        """Keep a program; nothing is compiled yet."""
        self.program: Any = program
        self.compiled: dict[Any, jax.stages.Compiled] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Run the program, after compiling it where a batch of these shapes comes for the first time."""
        return self.compile(*arguments)(*arguments)

    def compile(self, *arguments: Any) -> jax.stages.Compiled:
        """Return the executable for arguments like these, arrays or descriptions of arrays."""
        shapes = _shapes(arguments[-1])
        if shapes not in self.compiled:
            self.compiled[shapes] = self.lower(*arguments).compile()
        return self.compiled[shapes]

    def lower(self, *arguments: Any) -> jax.stages.Lowered:
        """Lower the program for arguments like these; nothing is kept."""
        lowered: jax.stages.Lowered = self.program.lower(*arguments)
        return lowered


def _shapes(batch: Mapping[str, Any]) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    return tuple((name, leaf.shape, str(leaf.dtype)) for name, leaf in sorted(batch.items()))
