"""Peak rates of accelerators, to which measured and estimated rates are compared."""

from typing import NamedTuple

from flax_distil.core.errors import InputError


class Peak(NamedTuple):
    """The peak rate of one device as JAX counts devices.

    Attributes:
        kind: Beginning of the device's ``device_kind``, in lower case.
        flops: Dense bfloat16 FLOP per second with accumulation in float32, without structured sparsity.
    """

    kind: str
    flops: float


TPU_PEAK_FLOPS = {
    "v3": 123e12, "v4": 275e12, "v5e": 197e12, "v5p": 459e12, "v6e": 918e12, "tpu7x": 2307e12,
}  # fmt: skip
"""bfloat16 FLOP per second of a TPU chip by generation (cloud.google.com/tpu/docs/ and the generation)."""

TPU_PEAK_INT8 = {"v5e": 394e12, "v5p": 918e12, "v6e": 1836e12}
"""int8 operations per second of a TPU chip by generation, as above; v3 and v4 do not multiply in int8."""

# GPUs: the data sheets of NVIDIA, whose bfloat16 rates are halved where they are given "with sparsity"; for
# GeForce cards, appendix A of the white papers of the GA102 and AD102. The first kind that fits counts.
PEAKS = (
    Peak("tpu v3", TPU_PEAK_FLOPS["v3"] / 2),  # a device is one of the two cores of a chip
    Peak("tpu v4", TPU_PEAK_FLOPS["v4"]),
    Peak("tpu v5 lite", TPU_PEAK_FLOPS["v5e"]),
    Peak("tpu v5e", TPU_PEAK_FLOPS["v5e"]),
    Peak("tpu v5", TPU_PEAK_FLOPS["v5p"]),
    Peak("tpu v6", TPU_PEAK_FLOPS["v6e"]),
    Peak("tpu7x", TPU_PEAK_FLOPS["tpu7x"] / 2),  # a device is one of the two cores of a chip
    Peak("nvidia a10g", 70e12),
    Peak("nvidia a100", 312e12),
    Peak("nvidia a10", 125e12),
    Peak("nvidia h100 pcie", 756e12),
    Peak("nvidia h100 nvl", 835e12),
    Peak("nvidia h100", 989e12),
    Peak("nvidia h200 nvl", 835e12),
    Peak("nvidia h200", 989e12),
    Peak("nvidia gh200", 989e12),
    Peak("nvidia b200", 2250e12),
    Peak("nvidia l40s", 362e12),
    Peak("nvidia l4", 121e12),
    Peak("nvidia geforce rtx 3090", 71e12),
    Peak("nvidia geforce rtx 4090", 165.2e12),
)  # fmt: skip


def check_int8(device_kind: str) -> None:
    """Check that a device multiplies in int8 faster than in bfloat16.

    Raises:
        InputError: If it is a TPU without int8 products.
    """
    if device_kind.lower().startswith(("tpu v2", "tpu v3", "tpu v4")):
        raise InputError(
            f"int8 is slower than bfloat16 on {device_kind}, which has no products of int8: "
            "choose bfloat16, or a TPU v5e or later"
        )


def peak_flops(device_kind: str) -> float | None:
    """Return the bfloat16 FLOP per second that a device can reach; None if its kind is not in the table.

    Args:
        device_kind: What JAX calls the kind of a device, such as "TPU v5 lite" or "NVIDIA A100-SXM4-80GB".
    """
    kind = device_kind.lower()
    return next((peak.flops for peak in PEAKS if kind.startswith(peak.kind)), None)
