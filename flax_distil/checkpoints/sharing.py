"""Compare the encoders of two models, of which one may have been rounded when it was saved."""

import itertools
from typing import Any

import ml_dtypes
import numpy as np

from flax_distil.core.arrays import Params
from flax_distil.core.tree import flatten

_ROUNDINGS: tuple[tuple[Any, ...], ...] = (
    (),
    (np.float16,),
    (ml_dtypes.bfloat16,),
    (np.float16, ml_dtypes.bfloat16),  # exported as float16, and then as bfloat16
)
"""Element types in which weights may have been stored between two files, in order."""


def equal_when_rounded(one: Params, other: Params) -> bool:
    """Return whether two trees have the same weights, of which one may be rounded to the type of its file.

    A student with float32 weights that was exported as float16 still has the encoder of its teacher. All
    numbers are compared exactly after rounding, so weights that were trained since then differ.

    Args:
        one: Tree of float32 leaves, as they were read.
        other: The same tree of the other model.
    """
    ours, theirs = flatten(one), flatten(other)
    if ours.keys() != theirs.keys() or any(ours[path].shape != theirs[path].shape for path in ours):
        return False
    orders = [(ours, theirs), (theirs, ours)]
    return any(
        all(_is_rounded(rounded[path], exact[path], types) for path in exact)
        for types, (exact, rounded) in itertools.product(_ROUNDINGS, orders)
    )


def _is_rounded(leaf: Any, exact: Any, types: tuple[Any, ...]) -> bool:
    if leaf is exact and not types:
        return True
    wanted = np.asarray(exact)
    with np.errstate(over="ignore"):
        for dtype in types:
            wanted = wanted.astype(dtype)
        return bool(np.array_equal(np.asarray(leaf), wanted.astype(np.float32)))
