"""What every room shares: axis names and array types, tree paths, error types, loops that overlap work."""

from flax_distil.core.arrays import Array, Bool, Float, Int, Params, UInt
from flax_distil.core.errors import InputError
from flax_distil.core.iteration import one_ahead
from flax_distil.core.layout import WHOLE, WeightLayout
from flax_distil.core.tree import Tree, flatten, merge, partition, unflatten

__all__ = [
    "WHOLE",
    "Array",
    "Bool",
    "Float",
    "InputError",
    "Int",
    "Params",
    "Tree",
    "UInt",
    "WeightLayout",
    "flatten",
    "merge",
    "one_ahead",
    "partition",
    "unflatten",
]
