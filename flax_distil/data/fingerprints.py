"""Compute a short digest of weights; equal digests mean equal arrays."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from flax_distil.core.tree import flatten


def weights_fingerprint(params: Mapping[str, Any]) -> str:
    """Return a digest of the names, types, shapes and values of a parameter tree.

    Args:
        params: Nested dictionary of arrays; arrays on devices are copied one at a time.

    Returns:
        32 hexadecimal digits, the same in every process.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in sorted(flatten(params).items()):
        array = np.ascontiguousarray(np.asarray(leaf))
        digest.update(f"{path} {array.dtype} {array.shape}\0".encode())
        # The array is viewed as bytes, because bfloat16 has no buffer interface.
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def encoder_fingerprint(encoder: Mapping[str, Any], dtype: str) -> str:
    """Return a digest of what decides the outputs of an encoder for a recording.

    Args:
        encoder: Weights of the encoder as it computes with them.
        dtype: Element type of its computations.
    """
    return f"{weights_fingerprint(encoder)}-{dtype}"
