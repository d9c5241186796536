"""How arrays of a batch are divided: read off the axis letters of their names."""

from jax.sharding import PartitionSpec as P

from flax_distil.parallel.mesh import BATCH_AXES


def batch_axis(name: str) -> int:
    """Return which dimension of a batch array is B.

    Raises:
        ValueError: if the name has no axis letters with a B.
    """
    letters = name.rsplit("_", 1)[-1]
    if "B" not in letters:
        raise ValueError(f"batch array {name!r} has no axis B in its name")
    return letters.index("B")


def batch_spec(name: str) -> P:
    """Return how a batch array is laid out: axis B is divided, K never."""
    return P(*[None] * batch_axis(name), BATCH_AXES)
