"""The settings of a LoRA adapter of PEFT: ``adapter_config.json``.

Source: ``LoraConfig`` of PEFT 0.21.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_distil.core.errors import InputError
from flax_distil.core.fields import (
    Fields,
    check_fields,
    kind_of,
    map_to,
    of_type,
    one_of,
    short_repr,
    whole_number,
)
from flax_distil.core.json_files import read_json

CONFIG_NAME = "adapter_config.json"

_NUMBER = kind_of(
    "a number", lambda value: type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e9
)
_BASE = kind_of("the name of a model", lambda value: isinstance(value, str) and bool(value.strip()))
_FIELDS: Fields = {
    "peft_type": one_of("LORA"),
    "base_model_name_or_path": _BASE,
    "revision": of_type(str, "a revision"),
    "r": whole_number(1, 2**16),
    "lora_alpha": _NUMBER,
    "alpha_pattern": map_to(_NUMBER),
    "use_rslora": of_type(bool, "true or false"),
    # These change how adapters are applied, in ways that are not known here.
    "fan_in_fan_out": one_of(False),
    "lora_bias": one_of(False),
    "use_qalora": one_of(False),
    # Other ways to initialize change the weights of the base too, which the adapter then needs.
    "init_lora_weights": one_of(True, False, "gaussian", "eva", "orthogonal"),
}
_REQUIRED = ("peft_type", "base_model_name_or_path", "lora_alpha")
_UNKNOWN = ("layer_replication", "trainable_token_indices", "target_parameters", "alora_invocation_tokens")
"""Fields of adapters that do more than adding low-rank matrices; they must be absent or empty."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Settings of a LoRA adapter.

    Attributes:
        base_model_name_or_path: The model that the adapter belongs to.
        revision: Revision of that model on the Hub; None for its main branch.
        lora_alpha: Numerator of the scale of the low-rank products.
        alpha_pattern: ``lora_alpha`` of some modules by the end of their names.
        use_rslora: Whether products are divided by the square root of the rank instead of the rank.
    """

    base_model_name_or_path: str
    revision: str | None
    lora_alpha: float
    alpha_pattern: Mapping[str, float]
    use_rslora: bool

    @classmethod
    def read(cls, folder: Path, *, origin: str) -> "LoraConfig":
        """Read the settings of the adapter in a folder.

        Raises:
            InputError: If they are missing or damaged, or ask for what is not done here.
        """
        name = f"{CONFIG_NAME} of {origin}"
        document = read_json(folder / CONFIG_NAME, name=name) or {}
        check_fields(document, _FIELDS, name=name, required=_REQUIRED)
        _check_known(document, name)
        return cls(
            base_model_name_or_path=document["base_model_name_or_path"],
            revision=document.get("revision") or None,
            lora_alpha=float(document["lora_alpha"]),
            alpha_pattern={end: float(alpha) for end, alpha in (document.get("alpha_pattern") or {}).items()},
            use_rslora=document.get("use_rslora") or False,
        )

    def scale(self, module: str, rank: int) -> float:
        """Return the factor of the low-rank product of a module.

        Args:
            module: Name of the module in the Hugging Face model, such as ``model.encoder.layers.0.fc1``.
            rank: Number of rows of its first matrix.
        """
        alpha = next(
            (
                value
                for end, value in self.alpha_pattern.items()
                if f".{module}".endswith(f".{end.removeprefix('^')}")
            ),
            self.lora_alpha,
        )
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def _check_known(document: Mapping[str, Any], name: str) -> None:
    for field in _UNKNOWN:
        if document.get(field):
            raise InputError(
                f"{name} has {field} {short_repr(document[field])}, which is not applied here: merge the "
                "adapter into its base with PEFT's merge_and_unload() and save_pretrained(...)"
            )
    for pattern in document.get("alpha_pattern") or {}:
        if not re.fullmatch(r"\^?[\w.]+", pattern):
            raise InputError(
                f"{name} has alpha_pattern with the expression {short_repr(pattern)}: only names of modules "
                "are known here, so merge the adapter with PEFT's merge_and_unload() and save_pretrained(...)"
            )
