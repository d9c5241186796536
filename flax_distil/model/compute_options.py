"""Options of how a model computes, which do not change its architecture."""

import dataclasses

from flax_distil.core.errors import InputError
from flax_distil.core.nested import setting
from flax_distil.core.param_sharding import REPLICATED, ParamSharding

CHECKPOINT_POLICY_NAMES = ("full", "dots", "dots_with_no_batch_dims")
"""Names of the policies of gradient checkpointing, which are in ``model/layers.py``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Computation.

    Attributes:
        dtype: Element type of the computations: float32, bfloat16, float16 or int8; norms, softmax and losses
            stay in float32. int8 is for transcribing: ``on`` says what it means on a platform.
        use_scan: Compile the layers as one loop, which takes as long as compiling one layer; false unrolls
            them.
        gradient_checkpointing: Recompute layers in the backward pass: full (also the meaning of the flag
            alone, and of true), dots or dots_with_no_batch_dims; by default every activation is kept.
        int8: Whether the kernels of the layers are given in int8 (``model/int8/products.py``), and multiplied
            in it; everything else is of the element type above. Such weights cannot be trained.
        sharding: Which pieces of the weights the model receives inside ``shard_map``; by default all.

    Raises:
        InputError: If a value is unknown.
    """

    dtype: str = "float32"
    use_scan: bool = True
    gradient_checkpointing: str | None = setting(None, switch="full")
    int8: bool = setting(False, hidden=True)
    sharding: ParamSharding = setting(REPLICATED, hidden=True)

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16", "float16", "int8"):
            raise InputError(f"dtype {self.dtype!r} is unknown: expected float32, bfloat16, float16 or int8")
        if self.gradient_checkpointing not in (None, *CHECKPOINT_POLICY_NAMES):
            raise InputError(
                f"gradient_checkpointing {self.gradient_checkpointing!r} is unknown: "
                f"expected one of {', '.join(CHECKPOINT_POLICY_NAMES)}"
            )

    def on(self, platform: str) -> "ComputeOptions":
        """Return these options with int8 decided: kernels of layers in it, all else in the type below.

        Args:
            platform: That of the devices; beside int8 a CPU computes in float32, others in bfloat16.
        """
        if self.dtype != "int8":
            return self
        return dataclasses.replace(self, dtype="float32" if platform == "cpu" else "bfloat16", int8=True)
