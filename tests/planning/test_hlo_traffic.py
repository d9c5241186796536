"""What a program moves to and from main memory: parts where only parts are touched, padding included."""

import pytest

from flax_distil.planning.hlo import program_costs
from flax_distil.planning.hlo_text import read_shape

TEXT = """\
HloModule step

%gathered (p0: bf16[51865,1280], p1: s32[64]) -> bf16[64,1280] {
  %p0 = bf16[51865,1280]{1,0:T(8,128)(2,1)} parameter(0)
  %p1 = s32[64]{0:T(128)} parameter(1)
  ROOT %gather.1 = bf16[64,1280]{1,0:T(8,128)(2,1)} gather(%p0, %p1), offset_dims={1}
}

%updated (p0: f32[64,128,1024], p1: f32[64,1,1024], p2: s32[]) -> f32[64,128,1024] {
  %p0.1 = f32[64,128,1024]{2,1,0:T(8,128)} parameter(0)
  %p1.1 = f32[64,1,1024]{2,1,0:T(8,128)S(3)} parameter(1)
  %p2.1 = s32[]{:T(128)S(2)} parameter(2)
  %zero = s32[]{:T(128)} constant(0)
  ROOT %write = f32[64,128,1024]{2,1,0:T(8,128)} dynamic-update-slice(%p0.1, %p1.1, %zero, %p2.1, %zero)
}

ENTRY %main (table: bf16[51865,1280], ids: s32[64], cache: f32[64,128,1024], slot: s32[]) -> f32[] {
  %table = bf16[51865,1280]{1,0:T(8,128)(2,1)} parameter(0)
  %ids = s32[64]{0:T(128)} parameter(1)
  %cache = f32[64,128,1024]{2,1,0:T(8,128)} parameter(2)
  %slot = s32[]{:T(128)S(2)} parameter(3)
  %rows = bf16[64,1280]{1,0:T(8,128)(2,1)S(3)} fusion(%table, %ids), kind=kLoop, calls=%gathered
  %copy-start = (bf16[64,1280]{1,0:T(8,128)}, bf16[64,1280]{1,0:T(8,128)S(3)}, u32[]{:S(2)}) copy-start(%rows)
  %copy-done = bf16[64,1280]{1,0:T(8,128)(2,1)} copy-done(%copy-start)
  %new = f32[64,1,1024]{2,1,0:T(8,128)S(3)} custom-call(%copy-done), custom_call_target="Make"
  ROOT %kept = f32[64,128,1024]{2,1,0:T(8,128)} fusion(%cache, %new, %slot), kind=kLoop, calls=%updated
}
"""


def test_traffic_is_what_is_touched():
    ids, rows, written = 4 * 128, 64 * 1280 * 2, 64 * 1024 * 4
    # The rows are read out of the table, copied to main memory, read from there; one slot is written.
    assert program_costs(TEXT).traffic == ids + rows + rows + rows + written


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("bf16[64,20,128,64]{0,3,1,2:T(8,128)(2,1)}", 128 * 20 * 128 * 64 * 2),
        ("bf16[64,1500,1280]{2,1,0:T(8,128)(2,1)}", 64 * 1504 * 1280 * 2),
        ("f32[64,51865]{1,0:T(8,128)S(3)}", 0),
        ("f32[3,5]{1,0}", 60),
        ("f32[3,5]", 60),
        ("s32[]{:T(128)}", 4),
    ],
)
def test_arrays_are_padded_to_whole_tiles_in_main_memory(shape, size):
    assert read_shape(shape)[0].bytes_in_main_memory == size
