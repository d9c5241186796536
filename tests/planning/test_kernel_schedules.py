"""The cycles of a kernel are the bundles of its schedule, those in loops as often as these run."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_distil.planning.hlo import kernel_calls, program_costs
from flax_distil.planning.kernel_schedules import (
    forget_schedules,
    read_schedules,
    schedule_folder,
    scheduled_cycles,
)
from flax_distil.planning.topologies import open_topology

SCHEDULE = """
= control target key start
     0   :  { %s9_s2 = smov.u32 0 /* copy */ }
   0x1 LB: > { %s3_s3 = sphi %s9_s2, %s4_s3 } /* Start region 7 */
   0x2   : > { %11 = sbr.rel (%p2_p1) target = $region9  ;;  %s6_s5 = smov.u32 0 }
   0x3 LB: >> { %s7_s6 = sphi %s6_s5, %s8_s6 /* a comment
of two lines */ } /* Start region 8 */
   0x4   : >> { %s8_s6 = sadd.s32 2, %s7_s6 }
   0x5   : >> { %p5_p4 = scmp.ge.s32.totalorder %s8_s6, BOUND /* loop exit test */ }
   0x6   : >> { %12 = sbr.rel (!%p5_p4) target = $region8 }
   0x7 PF: > { %s4_s3 = sadd.s32 1, %s3_s3 } /* Start/End empty region 9 */
   0x8   : > { %p1_p0 = scmp.ge.s32.totalorder %s4_s3, 3 }
   0x9   :  { %10 = sbr.rel (!%p1_p0) target = $region7 }
   0xa   :  { %13 = vsyncpa [#allocation1], 1 } /* exit bundle */
"""


def test_bundles_in_nested_loops_count_as_often_as_they_run():
    # Two bundles outside, five in the outer loop of 3 and four in the inner one of 0, 2, 4, 6, 8.
    assert scheduled_cycles(SCHEDULE.replace("BOUND", "10")) == 2 + 3 * (5 + 5 * 4)


def test_a_counter_may_wait_in_memory_while_a_loop_runs():
    spilled = SCHEDULE.replace("sadd.s32 1, %s3_s3 }", "sadd.s32 1, %s15_s9 }")
    spilled = spilled.replace("   0x2   : > {", "   0x2   : > { %14 = sst [smem:[#spill]] %s3_s3  ;;")
    spilled = spilled.replace("   0x7 PF: > {", "   0x7 PF: > { %s15_s9 = sld [smem:[#spill]]  ;;")
    assert scheduled_cycles(spilled.replace("BOUND", "10")) == 2 + 3 * (5 + 5 * 4)


def test_a_loop_of_unknown_length_and_a_text_without_bundles_are_not_counted():
    assert scheduled_cycles(SCHEDULE.replace("BOUND", "%s1_s1")) is None
    assert scheduled_cycles("Schedule analysis:\n") is None


def compiled_for(place: str, function, *shapes: tuple[int, ...]) -> tuple[str, dict[str, float]]:
    """Compile a function for a slice, and return its text and the cycles of its instructions."""
    whole = NamedSharding(Mesh(np.asarray(open_topology(place).devices), ("data",)), PartitionSpec())
    mapped = jax.shard_map(
        function, mesh=whole.mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False
    )
    leaves = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=whole) for shape in shapes]
    forget_schedules()
    text = jax.jit(mapped).lower(*leaves).compile().as_text()
    return text, read_schedules(schedule_folder(), set(re.findall(r"%([\w.\-]+) = ", text)))


def test_the_bundles_of_a_product_are_the_cycles_that_the_compiler_gives_it():
    """The compiler estimates what it made of XLA's own operations; the count of bundles agrees."""
    text, cycles = compiled_for("v4-8", jnp.matmul, (4096, 4096), (4096, 4096))
    estimated = {
        name: float(n) for name, n in re.findall(r'%([\w.\-]+) = .*"estimated_cycles":"(\d+)"', text)
    }
    (product,) = estimated.keys() & cycles.keys()
    assert cycles[product] == pytest.approx(estimated[product], rel=0.01)  # seen 0.001


@pytest.mark.parametrize("place", ["v4-8", "v5e-8", "v6e-8", "tpu7x-8"])
def test_a_kernel_with_twice_the_grid_takes_twice_the_cycles(place):
    def kernel(left_ref, right_ref, result_ref):
        result = jnp.dot(left_ref[...], right_ref[...], preferred_element_type=jnp.float32)
        result_ref[...] = result.astype(jnp.bfloat16)

    def product(left, right):
        return pl.pallas_call(
            kernel,
            grid=(left.shape[0] // 512,),
            in_specs=[pl.BlockSpec((512, 512), lambda i: (i, 0)), pl.BlockSpec((512, 512), lambda i: (0, 0))],
            out_specs=pl.BlockSpec((512, 512), lambda i: (i, 0)),
            out_shape=jax.ShapeDtypeStruct(left.shape, left.dtype),
            name="product",
        )(left, right)

    found = []
    for blocks in (16, 32):
        text, cycles = compiled_for(place, product, (512 * blocks, 512), (512, 512))
        (name,) = kernel_calls(text)
        kernel_costs = program_costs(text, schedules=cycles).kernels["product"]
        assert (kernel_costs.cycles, kernel_costs.unscheduled) == (cycles[name], 0.0)
        # Units may be busy when a bundle comes: seen 10 % fewer bundles than the peak allows cycles.
        assert cycles[name] >= 0.85 * 2 * 512**3 * blocks / open_topology(place).chip.flops_per_cycle
        found.append(cycles[name])
    # Two more runs of the loop fetch the first block and store the last one.
    assert found[1] / found[0] == pytest.approx((32 + 2) / (16 + 2), rel=0.02)
