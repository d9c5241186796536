"""Axis letters and array types, shared by every numeric file.

======  =============================================  ======================
letter  axis                                           size in Whisper
======  =============================================  ======================
B       batch
W       audio samples at 16 kHz                        480,000 (30 s)
R       mel frames of 10 ms                            3000
M       mel bins                                       80 or 128
S       source (encoder) positions of 20 ms            1500
T       target (decoder) positions                     up to 448
C       positions in a key/value cache
D       model width (``d_model``)
N       attention heads
H       features of one head
F       feed-forward width
V       vocabulary
L       layers
K       beams or samples of a row
Q       sequences of a batch: B rows of K each         B·K
======  =============================================  ======================

Names of arrays carry the letters of their axes, in order: ``logits_BTV``.
"""

from typing import Any

import jax
from jaxtyping import Bool, Float, Int, UInt

Params = dict[str, Any]
"""A nested dictionary of arrays, keyed by name; see ``flax_distil.model`` for its leaves."""

__all__ = ["Array", "Bool", "Float", "Int", "Params", "UInt"]

Array = jax.Array
