"""Convert tensors to the element type of an export, a piece at a time."""

from collections.abc import Iterator

import numpy as np

from flax_distil.core.errors import InputError

_PIECE_BYTES = 1 << 20


def pieces(tensor: np.ndarray) -> Iterator[np.ndarray]:
    """Yield consecutive rows of a tensor, of about a megabyte together, as views.

    Converted one after the other they never need the memory of a second tensor.
    """
    rows = max(1, _PIECE_BYTES // max(1, tensor[:1].nbytes))
    for start in range(0, len(tensor), rows):
        yield tensor[start : start + rows]


def converted(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return a tensor in the element type of an export.

    Args:
        name: Name of the tensor in messages.
        array: The tensor, of any floating-point type.
        dtype: float16, bfloat16 or float32.

    Raises:
        InputError: If a value does not fit float16.
    """
    with np.errstate(over="ignore"):
        converted = array.astype(dtype, copy=False)
    if dtype == np.float16 and np.isinf(converted).any() and not np.isinf(array).any():
        largest = float(np.abs(array).max())
        raise InputError(
            f"{name} reaches {largest:g}, more than float16 can hold ({np.finfo(np.float16).max}): "
            "export as bfloat16 or float32"
        )
    return converted
