"""A program compiled ahead is called as it was compiled."""

import jax
import jax.numpy as jnp
import numpy as np

from flax_distil.parallel.make_partitioner import single_device
from flax_distil.parallel.shaped_program import ShapedProgram
from tests.toys import compilations


def test_what_was_compiled_ahead_is_not_compiled_again():
    partitioner = single_device()
    program = ShapedProgram(
        partitioner.jit(lambda x, batch: x + batch["labels_BT"].sum(), donate_argnums=(0,))
    )
    batches = {
        length: partitioner.put_batch({"labels_BT": np.full((2, length), 3, np.int32)}) for length in (4, 8)
    }
    program.compile(jax.ShapeDtypeStruct((), jnp.int32), batches[8])
    start = jnp.int32(1) + 0
    with compilations() as compiled:
        x = program(start, batches[8])
        assert compiled == []
        x = program(x, batches[4])
        x = program(x, batches[4])
        assert len(compiled) == 1
    assert int(x) == 1 + 3 * (16 + 8 + 8)
    assert {shapes[0][1] for shapes in program.compiled} == {(2, 8), (2, 4)}
