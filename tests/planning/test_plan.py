"""A plan is made of compilations: what fits, what does not, and what is said of both."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_distil.planning.hlo import program_costs
from flax_distil.planning.plan import Job, make_plan
from flax_distil.planning.reports.report import JobDescription, plan_as_json, plan_as_text
from flax_distil.planning.topologies import open_topology

pytestmark = pytest.mark.integration

SIDE = 1024
DESCRIPTION = JobDescription(
    teacher=None,
    student="a product",
    label_length=1,
    samples_per_step=4 * 64,
    micro_batches=1,
    max_steps=1000,
)


@pytest.fixture(scope="module")
def topology():
    return open_topology("v4-8")


@pytest.fixture(scope="module")
def job(topology):
    """Five products of a matrix of SIDE × SIDE per sample, 4 MiB each, with one weight."""
    mesh = Mesh(np.asarray(topology.devices), ("data",))
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    weight = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32, sharding=whole)

    def program(weight, x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ weight), None), x, None, length=5)[0]

    def lower(batch):
        x = jax.ShapeDtypeStruct((4 * batch, SIDE, SIDE), jnp.float32, sharding=split)
        return jax.jit(program).lower(weight, x), {"weight": weight, "batch": x}

    return Job(
        what="train",
        lower=lower,
        flops=lambda batch: {"products": 5.0 * 2 * batch * SIDE**3},
        least_bytes=lambda batch: 2.0 * batch * SIDE**2 * 4,
        costs=lambda text, schedules: program_costs(text, schedules=schedules),
    )


@pytest.fixture(scope="module")
def plan(job, topology):
    return make_plan(job, topology, batch=64, search_seconds=600.0)


def test_memory_is_told_by_argument_and_adds_up(plan):
    assert plan.fits
    assert plan.memory.shares["weight"] == SIDE**2 * 4
    assert plan.memory.shares["batch"] == 64 * SIDE**2 * 4
    assert sum(plan.memory.shares.values()) == plan.memory.arguments
    assert plan.memory.total >= plan.memory.arguments + 64 * SIDE**2 * 4


@pytest.mark.filterwarnings("error:Error reading persistent compilation cache entry")
def test_the_largest_batch_compiles_and_the_next_does_not(plan, job, topology):
    assert plan.largest.is_compiled

    def fits(batch):
        return make_plan(job, topology, batch=batch, search_seconds=0.0).fits

    assert fits(plan.largest.batch)
    assert not fits(plan.largest.batch + 8)


def test_the_program_does_the_work_that_was_counted(plan):
    assert plan.costs.flops == sum(plan.flops.values()) == 5 * 2 * 64 * SIDE**3


def test_no_estimate_is_below_the_floor(plan):
    assert plan.estimate.floor == max(plan.estimate.flop_bound, plan.estimate.bandwidth_bound)
    assert plan.estimate.floor <= plan.estimate.seconds < 20 * plan.estimate.floor


def test_text_and_json_say_the_same_and_call_estimates_estimates(plan):
    figures = json.loads(json.dumps(plan_as_json(plan, DESCRIPTION)))
    text = plan_as_text(plan, DESCRIPTION)
    assert figures["fits"] is True
    assert figures["hbm_bytes_per_chip"] == plan.memory.total
    assert figures["flops_per_step"] == 4 * figures["flops_per_step_per_chip"]
    assert figures["samples_per_second"] == pytest.approx(256 / figures["estimated_step_seconds"])
    assert figures["estimated_hours"] == pytest.approx(figures["estimated_step_seconds"] * 1000 / 3600)
    assert f"{plan.memory.total / 2**30:.2f} of 30.75: fits" in text
    assert f"largest batch that fits: {figures['largest_per_device_batch']} per chip (compiled" in text
    assert "time per step (seconds; estimates)" in text
    assert "nothing was run" in text


def test_what_does_not_fit_gets_no_estimate_but_the_batch_that_does(plan, job, topology):
    too_large = make_plan(job, topology, batch=20000, search_seconds=600.0)
    figures, text = plan_as_json(too_large, DESCRIPTION), plan_as_text(too_large, DESCRIPTION)
    assert figures["fits"] is False
    assert figures["hbm_bytes_per_chip"] is figures["estimated_step_seconds"] is None
    assert "does not fit into 30.75" in text
    assert "Ran out of memory" in text
    assert figures["largest_per_device_batch"] == plan.largest.batch
    assert figures["floor_seconds"] > 0


def test_without_time_the_largest_batch_is_extrapolated_and_said_to_be(job, topology):
    plan = make_plan(job, topology, batch=64, search_seconds=0.0)
    assert len(plan.largest.trials) == 1
    assert plan_as_json(plan, DESCRIPTION)["largest_batch_found_by"] == "extrapolated"
