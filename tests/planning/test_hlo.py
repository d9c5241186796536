"""Compiled programs are read right: products, loops, branches, collectives, kernels."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from flax_distil.planning.hlo import program_costs
from flax_distil.planning.hlo_text import read_program, read_shape
from tests.planning.programs import PLACES, compiled_text


@pytest.mark.parametrize("place", PLACES)
def test_products_in_nested_loops_count_as_often_as_they_run(place):
    def inner(x, weight):
        return jnp.tanh(x @ weight)

    def program(x, weight):
        def outer(x, _):
            return jax.lax.scan(lambda x, _: (inner(x, weight), None), x, None, length=5)[0], None

        return jax.lax.scan(outer, x, None, length=3)[0]

    costs = program_costs(compiled_text(program, place, (256, 512), (512, 512)))
    assert costs.flops == 3 * 5 * 2 * 256 * 512 * 512
    assert costs.unknown_loops == costs.unread_lines == 0
    assert (costs.cycles > 0) == (place != "cpu")


@pytest.mark.parametrize("place", PLACES)
def test_products_over_batch_axes_count_no_padding(place):
    """A TPU compiler makes them convolutions whose window is as large as the batch."""

    def program(query, key):
        return jnp.einsum("bnth,bnsh->bnts", query, key)

    text = compiled_text(program, place, (4, 6, 256, 64), (4, 6, 384, 64))
    assert program_costs(text).flops == 4 * 6 * 2 * 256 * 384 * 64


@pytest.mark.parametrize("place", PLACES)
def test_a_strided_convolution_counts_the_taps_inside_its_input(place):
    """A TPU compiler cuts a long one into pieces that overlap, and so computes a little more."""

    def program(x, kernel):
        layout = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(x, kernel, (2,), [(1, 1)], dimension_numbers=layout)

    costs = program_costs(compiled_text(program, place, (2, 1000, 128), (3, 128, 256)))
    exact = 2 * 2 * (3 * 500 - 1) * 128 * 256
    assert costs.flops == exact if place == "cpu" else exact <= costs.flops <= 1.02 * exact


@pytest.mark.parametrize("place", PLACES)
def test_a_loop_that_the_data_end_runs_as_often_as_it_is_told(place):
    def program(x, weight):
        return jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: jnp.tanh(x @ weight), x)

    text = compiled_text(program, place, (256, 256), (256, 256))
    once, often = program_costs(text), program_costs(text, unknown_trips=7)
    assert once.unknown_loops == 1
    assert often.flops == 7 * once.flops == 7 * 2 * 256**3


@pytest.mark.parametrize("place", PLACES)
def test_of_two_branches_the_dearer_counts(place):
    def program(x, weight):
        return jax.lax.cond(x.sum() > 0, lambda x: x @ weight @ weight, lambda x: x @ weight, x)

    text = compiled_text(program, place, (256, 256), (256, 256))
    assert program_costs(text).flops == 2 * 2 * 256**3


@pytest.mark.parametrize("place", [place for place in PLACES if place != "cpu"])
def test_collectives_are_counted_with_their_bytes(place):
    def program(x):
        def body(x, _):
            return jnp.sin(jax.lax.psum(x, "data")), None

        return jax.lax.scan(body, x, None, length=4)[0]

    costs = program_costs(compiled_text(program, place, (1024, 256), dtype=jnp.float32))
    assert set(costs.collectives) == {"all-reduce"}
    assert costs.collectives["all-reduce"].calls == 4
    assert costs.collective_bytes == 4 * 1024 * 256 * 4


@pytest.mark.parametrize("place", [place for place in PLACES if place != "cpu"])
@pytest.mark.parametrize("stated", [None, 12345])
def test_kernels_are_named_counted_and_believed(place, stated):
    estimate = None if stated is None else pl.CostEstimate(flops=stated, transcendentals=0, bytes_accessed=0)

    def double(x_ref, y_ref):
        y_ref[...] = x_ref[...] * 2

    def program(x):
        def body(x, _):
            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
            return pl.pallas_call(double, out_shape=shape, name="double", cost_estimate=estimate)(x), None

        return jax.lax.scan(body, x, None, length=6)[0]

    costs = program_costs(compiled_text(program, place, (256, 256), dtype=jnp.float32))
    assert costs.kernels["double"].calls == 6
    assert costs.kernel_flops == 6 * (stated or 0)


def test_what_is_no_program_is_counted_as_unread():
    assert program_costs("").unread_lines == 1
    text = "ENTRY %main (x: f32[2]) -> f32[2] {\n  %x = f32[2] parameter(0)\n  ???\n  ROOT %y = what\n}\n"
    costs = program_costs(text)
    assert (costs.unread_lines, costs.flops) == (2, 0.0)


def test_a_loop_to_a_bound_it_carries_is_counted_and_one_it_changes_is_not():
    def program(step):
        return f"""
%body (t: (s32[], s32[], f32[8,8])) -> (s32[], s32[], f32[8,8]) {{
  %t = (s32[], s32[], f32[8,8]) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %n = s32[] get-tuple-element(%t), index=1
  %x = f32[8,8] get-tuple-element(%t), index=2
  %two = s32[] constant(2)
  %next = s32[] {step}(%i, %two)
  %y = f32[8,8] dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %out = (s32[], s32[], f32[8,8]) tuple(%next, %n, %y)
}}
%condition (t: (s32[], s32[], f32[8,8])) -> pred[] {{
  %t = (s32[], s32[], f32[8,8]) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %n = s32[] get-tuple-element(%t), index=1
  ROOT %go = pred[] compare(%n, %i), direction=GE
}}
ENTRY %main (x: f32[8,8]) -> (s32[], s32[], f32[8,8]) {{
  %x = f32[8,8] parameter(0)
  %zero = s32[] constant(0)
  %ten = s32[] constant(10)
  %start = (s32[], s32[], f32[8,8]) tuple(%zero, %ten, %x)
  ROOT %loop = (s32[], s32[], f32[8,8]) while(%start), condition=%condition, body=%body
}}
"""

    counted, uncounted = program_costs(program("add")), program_costs(program("multiply"))
    assert (counted.flops, counted.unknown_loops) == (6 * 2 * 8**3, 0)  # 0, 2, … 10
    assert (uncounted.flops, uncounted.unknown_loops) == (2 * 8**3, 1)


def test_shapes_with_layouts_tuples_and_bounds_are_read():
    shape = read_shape("(bf16[4,<=8]{1,0:T(8,128)(2,1)S(3)}, /*index=1*/pred[], f8e4m3fn[16]{0})")
    assert [(array.sides, array.bytes) for array in shape] == [((4, 8), 64), ((), 1), ((16,), 16)]


def test_every_line_of_a_real_program_is_read():
    text = compiled_text(lambda x: jax.nn.softmax(jnp.sort(x)), "v4-8", (256, 256))
    program = read_program(text)
    assert program.unread_lines == 0
    assert program.entry in program.computations
