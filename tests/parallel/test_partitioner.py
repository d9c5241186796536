"""A partitioner compiles a function once, whoever asks for it."""

import functools

import jax.numpy as jnp
import numpy as np

from flax_distil.parallel.jit_partitioner import JitPartitioner
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.parallel.partitioner import REPLICATED, ROWS


def scale(factor, weights, batch):
    return batch["x_BD"] * weights["w"] * factor


def compiled(partitioner, factor, **changes):
    specs = {"in_specs": ({"w": REPLICATED}, ROWS), "out_specs": ROWS, **changes}
    return partitioner.jit(functools.partial(scale, factor), **specs)


def test_equal_functions_are_compiled_once_and_others_apart():
    partitioner = JitPartitioner(single_device().mesh)
    double = compiled(partitioner, 2.0)
    assert compiled(partitioner, 2.0) is double
    others = [
        compiled(partitioner, 3.0),
        compiled(partitioner, 2.0, out_specs=REPLICATED),
        compiled(partitioner, 2.0, donate_argnums=(0,)),
        compiled(JitPartitioner(partitioner.mesh), 2.0),
    ]
    assert len({id(function) for function in (double, *others)}) == 5
    batch = partitioner.put_batch({"x_BD": np.ones((2, 3), np.float32)})
    np.testing.assert_array_equal(double({"w": jnp.ones(3)}, batch), np.full((2, 3), 2.0))


def test_functions_that_nobody_asks_for_are_dropped_in_the_end():
    partitioner = JitPartitioner(single_device().mesh)
    kept, dropped = compiled(partitioner, 0.5), compiled(partitioner, 0.25)
    for factor in range(200):
        compiled(partitioner, float(factor))
        assert compiled(partitioner, 0.5) is kept
    assert compiled(partitioner, 0.25) is not dropped
