"""The table of weight shardings: which dimension of which weight is divided over which mesh axis."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import PartitionSpec as P

from flax_distil.core.arrays import Params
from flax_distil.core.errors import InputError
from flax_distil.core.param_sharding import ParamSharding
from flax_distil.core.tree import flatten, unflatten
from flax_distil.parallel.mesh import FSDP_AXIS, TENSOR_AXIS

WEIGHT_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # path of a leaf below encoder/ or decoder/               its dimensions
    (r"conv[12]/kernel",                                      (None, None, "width")),
    (r"(conv[12]|norm)/(bias|scale)",                         ("width",)),
    (r"position_embedding/embedding",                         (None, "width")),
    (r"token_embedding/embedding",                            ("vocabulary", "width")),
    # layers, stacked
    (r"layers/(self|cross)_attention/(query|key|value)/kernel", (None, "width", "heads", None)),
    (r"layers/(self|cross)_attention/(query|key|value)/(bias|kernel_scale)", (None, "heads", "width")),
    (r"layers/(self|cross)_attention/out/kernel",             (None, "heads", None, "width")),
    (r"layers/(self|cross)_attention/out/(bias|kernel_scale)", (None, "width")),
    (r"layers/(\w+_norm)/(scale|bias)",                       (None, "width")),
    (r"layers/fc1/kernel",                                    (None, "width", "features")),
    (r"layers/fc1/(bias|kernel_scale)",                       (None, "features+width")),
    (r"layers/fc2/kernel",                                    (None, "features", "width")),
    (r"layers/fc2/(bias|kernel_scale)",                       (None, "width")),
    # layers that are not stacked, for decoding
    (r"layers/\d+/(self_attention/(query|key|value)|cross_attention/(query|value))/kernel",
                                                              ("heads", None, "width")),
    (r"layers/\d+/cross_attention/key/kernel",                ("heads", "width", None)),
    (r"layers/\d+/(self|cross)_attention/(query|key|value)/(bias|kernel_scale)", ("heads", "width")),
    (r"layers/\d+/(self|cross)_attention/out/kernel",         ("width", "heads", None)),
    (r"layers/\d+/(self|cross)_attention/out/(bias|kernel_scale)", ("width",)),
    (r"layers/\d+/(\w+_norm)/(scale|bias)",                   ("width",)),
    (r"layers/\d+/fc1/kernel",                                ("features", "width")),
    (r"layers/\d+/fc1/(bias|kernel_scale)",                   ("features+width",)),
    (r"layers/\d+/fc2/kernel",                                ("width", "features")),
    (r"layers/\d+/fc2/(bias|kernel_scale)",                   ("width",)),
)  # fmt: skip
"""Names of the dimensions of each leaf. ``heads``, ``features`` and ``vocabulary`` are divided over the
tensor axis, ``width`` over the fsdp axis (the head features of a bias count as width), and ``features+width``
over both."""

_MESH_AXES: dict[str | None, tuple[str, ...]] = {
    None: (),
    "width": (FSDP_AXIS,),
    "heads": (TENSOR_AXIS,),
    "features": (TENSOR_AXIS,),
    "vocabulary": (TENSOR_AXIS,),
    "features+width": (TENSOR_AXIS, FSDP_AXIS),
}


def weight_specs(shapes: Params, axes: Mapping[str, int], *, vocabulary: bool = True) -> dict[str, Any]:
    """Return the ``PartitionSpec`` of every leaf, as a tree with the structure of ``shapes``.

    Args:
        shapes: Tree of ``flax_distil.model.assembly.whisper_shapes`` or ``decode_shapes``, or a part of it
            with ``encoder`` or ``decoder`` at the top.
        axes: Sizes of the mesh axes to use; weights are not divided over other axes.
        vocabulary: Whether the tensor axis divides the token embedding.

    Raises:
        InputError: If no rule matches a leaf, or an axis does not divide a dimension.
    """
    return unflatten(
        {path: _spec(path, leaf.shape, axes, vocabulary) for path, leaf in flatten(shapes).items()}
    )


def _spec(path: str, shape: Sequence[int], axes: Mapping[str, int], vocabulary: bool) -> P:
    below = path.split("/", 1)[-1]
    dimensions = next((found for rule, found in WEIGHT_RULES if re.fullmatch(rule, below)), None)
    if dimensions is None or len(dimensions) != len(shape):
        raise InputError(f"no rule says how weight {path} of shape {list(shape)} lies over a mesh")
    entries: list[Any] = []
    for name, size in zip(dimensions, shape, strict=True):
        used = tuple(axis for axis in _MESH_AXES[name] if axes.get(axis, 1) > 1)
        if name == "vocabulary" and not vocabulary:
            used = ()
        if size % math.prod(axes[axis] for axis in used):
            advice = ", or set shard_vocabulary to false" if name == "vocabulary" else ""
            over = " and ".join(f"{axis}={axes[axis]}" for axis in used)
            raise InputError(
                f"the {name} of {path} ({size}) cannot be divided over {over}: choose a mesh whose size "
                f"divides it{advice}"
            )
        entries.append(used[0] if len(used) == 1 else used or None)
    while entries and entries[-1] is None:
        entries.pop()
    return P(*entries)


def param_sharding(specs: Mapping[str, Any]) -> ParamSharding:
    """Return the sharding that :func:`weight_specs` describes, in the form that the model takes."""
    flat = flatten(specs)
    gathered: dict[str, int] = {}
    for path, spec in flat.items():
        for dimension, entry in enumerate(spec):
            if FSDP_AXIS in _names(entry):
                gathered[re.sub(r"^layers/\d+/", "layers/*/", path.split("/", 1)[-1])] = dimension
    tensor = any(
        TENSOR_AXIS in _names(entry) for path, spec in flat.items() if "/layers/" in path for entry in spec
    )
    embedding = flat.get("decoder/token_embedding/embedding", P())
    return ParamSharding(
        tensor_axis=TENSOR_AXIS if tensor else None,
        vocabulary_axis=TENSOR_AXIS if embedding and TENSOR_AXIS in _names(embedding[0]) else None,
        gather_axis=FSDP_AXIS if gathered else None,
        gather_dimensions=tuple(sorted(gathered.items())),
    )


def _names(entry: Any) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry or ())
