"""The TPU kernel, interpreted on a CPU and compiled for a TPU, and when which kernel is taken."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_distil.model import attention, attention_kernels
from flax_distil.model.attention import dot_product_attention
from flax_distil.model.attention_kernels import attend_on_tpu
from tests.model.programs import compiled

interpreted = functools.partial(attend_on_tpu, interpret=True)


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks of queries, each of several parts; the keys take several chunks too."""
    monkeypatch.setattr(attention_kernels, "_BLOCK", 128)
    monkeypatch.setattr(attention_kernels, "_FORWARD_BLOCK", 256)
    monkeypatch.setattr(attention_kernels, "_OTHER_SIZES", attention_kernels._Sizes(part=128, chunk=256))


def draw(queries: int, keys: int, dtype, *, heads: int = 2, features: int = 16):
    """Return queries, keys, values and weights of the result in a loss."""
    lengths = (queries, keys, keys, queries)
    random = jax.random.split(jax.random.key(0), 4)
    shapes = [(2, heads, length, features) for length in lengths]
    return [jax.random.normal(key, shape).astype(dtype) for key, shape in zip(random, shapes, strict=True)]


def value_and_slopes(attend, query, key, value, weight):
    def loss(*inputs):
        mixed = attend(*inputs).astype(jnp.float32)
        return (mixed * weight.astype(jnp.float32)).sum(), mixed

    slopes, mixed = compiled(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(query, key, value)
    return [mixed, *slopes]


def largest_errors(found, exact) -> list[float]:
    """Return the largest error of each array, as a part of its largest number."""
    pairs = [
        (np.asarray(a, np.float32), np.asarray(b, np.float32)) for a, b in zip(found, exact, strict=True)
    ]
    return [np.abs(a - b).max() / np.abs(b).max() for a, b in pairs]


@pytest.mark.parametrize(("queries", "keys"), [(300, 300), (200, 256), (128, 300)])
def test_the_tpu_kernel_equals_the_reference_in_float32(small_blocks, queries, keys):
    inputs = draw(queries, keys, jnp.float32)
    errors = largest_errors(
        value_and_slopes(interpreted, *inputs), value_and_slopes(attention._whole, *inputs)
    )
    # Other orders of summation, and weights of the gradient from a rounded logarithm: seen 4e-6.
    assert max(errors) < 1e-5


@pytest.mark.parametrize(("queries", "keys"), [(300, 300), (200, 256)])
def test_the_tpu_kernel_is_as_exact_as_the_reference_in_bfloat16(small_blocks, queries, keys):
    inputs = draw(queries, keys, jnp.bfloat16)
    exact = value_and_slopes(attention._whole, *(x.astype(jnp.float32) for x in inputs))
    errors = largest_errors(value_and_slopes(interpreted, *inputs), exact)
    theirs = largest_errors(value_and_slopes(attention._whole, *inputs), exact)
    # Both round weights and results to 8 bits, at different places of the gradient.
    assert max(errors) < 2**-6
    assert max(errors) < 1.5 * max(theirs)


def test_the_tpu_kernel_equals_the_reference_on_the_positions_of_whisper():
    inputs = draw(1500, 1500, jnp.float32, heads=1, features=64)
    errors = largest_errors(
        value_and_slopes(interpreted, *inputs), value_and_slopes(attention._whole, *inputs)
    )
    assert max(errors) < 1e-5  # as above


def test_heads_of_few_queries_share_a_step():
    query, key, value, _ = draw(128, 300, jnp.float32, heads=4)
    found, exact = (compiled(attend)(query, key, value) for attend in (interpreted, attention._whole))
    assert max(largest_errors([found], [exact])) < 1e-5  # as above


def test_large_scores_do_not_overflow(small_blocks):
    query, key, value, weight = draw(200, 200, jnp.float32)
    inputs = 100.0 * query, key, value, weight
    errors = largest_errors(
        value_and_slopes(interpreted, *inputs), value_and_slopes(attention._whole, *inputs)
    )
    # Scores reach 1000, where float32 steps by 6e-5 and exp turns that into a relative error.
    assert max(errors) < 1e-3


@pytest.fixture(scope="module")
def v4() -> Mesh:
    """Four chips that are not there."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    chips = topologies.get_topology_desc("v4:2x2x1", platform="tpu", chip_config_name="megacore").devices
    return Mesh(np.array(chips), ("data",))


def test_compiled_for_tpus_forward_and_backward_are_one_kernel_each(v4):
    """As an encoder runs it: each chip's own rows, a loop over layers, recomputed going back."""

    def layers(x_BNSH):
        def layer(x, _):
            return x + dot_product_attention(x, x, x), None

        return jax.lax.scan(jax.checkpoint(layer), x_BNSH, length=2)[0]

    rows = PartitionSpec("data")
    run = jax.shard_map(layers, mesh=v4, in_specs=rows, out_specs=rows, check_vma=False)
    slope = jax.grad(lambda x: run(x).astype(jnp.float32).sum())
    x = jax.ShapeDtypeStruct((4, 2, 1500, 64), jnp.bfloat16, sharding=NamedSharding(v4, rows))

    def kernels(function) -> set[str]:
        calls = [line for line in function.splitlines() if 'custom_call_target="tpu_custom_call"' in line]
        return {name for line in calls for name in ("forward", "backward") if f"attention_{name}" in line}

    assert kernels(jax.jit(run).lower(x).compile().as_text()) == {"forward"}
    assert kernels(jax.jit(slope).lower(x).compile().as_text()) == {"forward", "backward"}


@pytest.mark.parametrize(("topology", "part"), [("v4:2x2x1", 384), ("v5e:2x2", 512), ("v6e:2x2", 512)])
def test_parts_have_the_size_for_the_chips_of_the_mesh(v4, topology, part):
    chips = topologies.get_topology_desc(topology, platform="tpu").devices
    mesh = Mesh(np.array(chips), ("data",))
    found = []
    rows = PartitionSpec("data")

    def note(x):
        found.append(attention_kernels._sizes().part)
        return x

    run = jax.shard_map(note, mesh=mesh, in_specs=rows, out_specs=rows)
    jax.jit(run).trace(jax.ShapeDtypeStruct((8,), jnp.float32, sharding=NamedSharding(mesh, rows)))
    assert set(found) == {part}


def lowered(platform: str, *shape: int, mask: bool = False) -> str:
    """Return the program of an attention to itself, lowered here for another platform."""
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    visible = jnp.ones((1, 1, shape[2], shape[2]), bool) if mask else None
    traced = jax.jit(lambda x: dot_product_attention(x, x, x, visible)).trace(x)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_only_many_unmasked_queries_on_a_tpu_take_the_kernel():
    assert "tpu_custom_call" in lowered("tpu", 1, 2, 1500, 64)
    assert "tpu_custom_call" not in lowered("tpu", 1, 2, 1500, 64, mask=True)
    assert "tpu_custom_call" not in lowered("tpu", 1, 2, 20, 64)
    assert "tpu_custom_call" not in lowered("tpu", 1, 1, 128, 1280)
    assert "custom_call" not in lowered("cpu", 1, 2, 1500, 64)


def test_lowered_for_an_nvidia_gpu_where_there_is_none_attention_is_the_general_one():
    assert "custom_call" not in lowered("cuda", 1, 2, 1500, 64)
