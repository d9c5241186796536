"""What every room shares: axis names and array types, tree paths, error types, loops that overlap work."""

from flax_distil.core.arrays import Array, Bool, Float, Int, Params, UInt
from flax_distil.core.console import is_quiet, quiet, show
from flax_distil.core.errors import InputError
from flax_distil.core.fields import (
    Fields,
    Kind,
    check_fields,
    either,
    fraction,
    kind_of,
    list_of,
    map_to,
    object_with,
    of_type,
    one_line,
    one_of,
    shown,
    whole_number,
)
from flax_distil.core.files import write_whole
from flax_distil.core.iteration import one_ahead
from flax_distil.core.json_files import parse_json, read_bounded, read_json
from flax_distil.core.layout import WHOLE, WeightLayout
from flax_distil.core.paths import user_path
from flax_distil.core.tree import Tree, flatten, merge, partition, unflatten

__all__ = [
    "WHOLE",
    "Array",
    "Bool",
    "Fields",
    "Float",
    "InputError",
    "Int",
    "Kind",
    "Params",
    "Tree",
    "UInt",
    "WeightLayout",
    "check_fields",
    "either",
    "flatten",
    "fraction",
    "is_quiet",
    "kind_of",
    "list_of",
    "map_to",
    "merge",
    "object_with",
    "of_type",
    "one_ahead",
    "one_line",
    "one_of",
    "parse_json",
    "partition",
    "quiet",
    "read_bounded",
    "read_json",
    "show",
    "shown",
    "unflatten",
    "user_path",
    "whole_number",
    "write_whole",
]
