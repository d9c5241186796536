"""How a model computes, apart from its shape."""

import dataclasses

from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested
from flax_distil.core.param_sharding import REPLICATED, ParamSharding

CHECKPOINT_POLICY_NAMES = ("full", "dots", "dots_with_no_batch_dims")
"""Names of what gradient checkpointing keeps of a layer; the policies are in ``model/layers.py``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How a model computes, apart from its shape.

    Attributes:
        dtype: of activations and of the weights as used ("float32", "bfloat16", "float16");
            norms, softmax and losses stay in float32.
        use_scan: run the layers as one ``lax.scan``: compiles in the time of one layer.
        gradient_checkpointing: name of a policy in ``model/layers.py``: recompute each
            layer in the backward pass; None keeps every activation.
        sharding: which pieces of the weights are given, inside ``shard_map``; by default all.
    """

    dtype: str = "float32"
    use_scan: bool = True
    gradient_checkpointing: str | None = None
    sharding: ParamSharding = nested(
        REPLICATED, hide=[field.name for field in dataclasses.fields(ParamSharding)]
    )

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise InputError(f"dtype {self.dtype!r} is unknown: expected float32, bfloat16 or float16")
        if self.gradient_checkpointing not in (None, *CHECKPOINT_POLICY_NAMES):
            raise InputError(
                f"gradient_checkpointing {self.gradient_checkpointing!r} is unknown: "
                f"expected one of {', '.join(CHECKPOINT_POLICY_NAMES)}"
            )
