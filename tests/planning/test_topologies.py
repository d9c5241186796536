"""Slices have the chips their names say, and the table of chips agrees with the compiler."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_distil.core.errors import InputError
from flax_distil.planning.chips import TOPOLOGIES, check_topology
from flax_distil.planning.hlo import program_costs
from flax_distil.planning.topologies import open_topology

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("name", "chips"),
    [("v4-8", 4), ("v4-16", 8), ("v4-32", 16), ("v5p-8", 4), ("v5e-1", 1), ("v5e-8", 8), ("v5e-16", 16),
     ("v6e-4", 4), ("v5litepod-8", 8), ("tpu7x-8", 8)],
)  # fmt: skip
def test_the_number_in_a_name_counts_cores_or_chips(name, chips):
    assert len(open_topology(name).devices) == chips


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_known_slice_can_be_compiled_for(name):
    _, shape = TOPOLOGIES[name]
    topology = open_topology(name)
    assert len(topology.devices) == topology.chip.devices * np.prod([int(side) for side in shape.split("x")])


def test_an_unknown_slice_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(
        InputError, match=r"topology 'v4-7' is unknown: expected one of v4-8, v4-16, .*tpu7x-1024"
    ):
        check_topology("v4-7")


def test_a_missing_compiler_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(InputError, match=r"libtpu, which is not installed: pip install .*tpu-plan"):
        open_topology("v4-8")


@pytest.mark.parametrize("name", ["v4-8", "v5e-8", "v5p-8", "v6e-8", "tpu7x-8"])
def test_a_large_product_takes_the_compiler_little_more_than_the_peak_allows(name):
    topology = open_topology(name)
    whole = NamedSharding(Mesh(np.asarray(topology.devices), ("data",)), PartitionSpec())
    side = 8192
    square = jax.ShapeDtypeStruct((side, side), jnp.bfloat16, sharding=whole)
    costs = program_costs(jax.jit(jnp.matmul).lower(square, square).compile().as_text())
    assert costs.flops == 2 * side**3
    seconds = costs.cycles / topology.chip.cycles_per_second
    # Measured: 70 % (v6e) to 93 % (v4). Units or a clock counted wrongly would be off by a factor of two.
    assert 0.65 < costs.flops / seconds / topology.chip.peak_flops < 1


@pytest.mark.parametrize("name", ["v4-8", "v5e-8", "v5p-8", "v6e-8", "tpu7x-8"])
def test_a_program_fits_up_to_the_memory_in_the_table_and_no_further(name):
    topology = open_topology(name)
    whole = NamedSharding(Mesh(np.asarray(topology.devices), ("data",)), PartitionSpec())

    def compile_adding_one(size):
        leaf = jax.ShapeDtypeStruct((int(size) // 2**20, 2**18), jnp.float32, sharding=whole)
        return jax.jit(lambda x: x + 1, donate_argnums=0).lower(leaf).compile()

    compile_adding_one(topology.chip.hbm_bytes - 2**25)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        compile_adding_one(topology.chip.hbm_bytes + 2**25)
