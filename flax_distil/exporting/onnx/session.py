"""Run an ONNX export in ONNX Runtime, as Transformers.js and Optimum do: encode once, then token by token."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.exporting.onnx.precision import PRECISIONS, model_paths

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

Cache = dict[str, np.ndarray]
"""Keys and values ``[B, N, T, H]`` by the names of the decoder's inputs; ``{}`` before the first step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxSession:
    """An encoder and a merged decoder, opened in ONNX Runtime on the CPU.

    Attributes:
        encoder: Session of the encoder.
        decoder: Session of the decoder.
    """

    encoder: Any = dataclasses.field(repr=False)
    decoder: Any = dataclasses.field(repr=False)

    @staticmethod
    def is_in(folder: Path, precision: str) -> bool:
        """Return whether an export has the files of a precision."""
        return all(path.is_file() for path in model_paths(folder, PRECISIONS[precision]))

    @classmethod
    def open(cls, folder: Path, precision: str) -> "OnnxSession":
        """Open the files of one precision (fp32, fp16 or q8) of an export."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        # Threads that wait in a loop take the cores from others, and from each other where cores are few.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        encoder, decoder = (
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for path in model_paths(folder, PRECISIONS[precision])
        )
        return cls(encoder=encoder, decoder=decoder)

    def encode(self, features_BMR: np.ndarray) -> np.ndarray:
        """Return the hidden states ``[B, S, D]`` of log-mel features, float32."""
        return self.encoder.run(["last_hidden_state"], {"input_features": features_BMR})[0]

    @property
    def features_shape(self) -> tuple[int, int, int]:
        """Shape of features: one row, mel bins, frames."""
        _, mel_bins, frames = self.encoder.get_inputs()[0].shape
        return 1, mel_bins, frames

    def step(
        self, tokens_BT: np.ndarray, encoder_out_BSD: np.ndarray, cache: Cache
    ) -> tuple[np.ndarray, Cache]:
        """Decode tokens that follow those in a cache.

        Args:
            tokens_BT: The tokens, integers.
            encoder_out_BSD: Result of :meth:`encode`.
            cache: Result of the step before; ``{}`` for the first one.

        Returns:
            The logits ``[B, T, V]`` float32, and the cache of the next step.
        """
        feeds = {
            "input_ids": tokens_BT.astype(np.int64),
            "encoder_hidden_states": encoder_out_BSD,
            "use_cache_branch": np.array([bool(cache)]),
            **(cache or self._empty_cache(len(tokens_BT))),
        }
        # Keys and values of the encoder's output are made by the first step only.
        new = [name for name in self._cache_names() if not (cache and ".encoder." in name)]
        names = ["logits", *(name.replace("past_key_values", "present") for name in new)]
        logits_BTV, *present = self.decoder.run(names, feeds)
        return logits_BTV, cache | dict(zip(new, present, strict=True))

    def _cache_names(self) -> list[str]:
        names = [one.name for one in self.decoder.get_inputs()]
        return [name for name in names if name.startswith("past_key_values")]

    def _empty_cache(self, rows: int) -> Cache:
        inputs = {one.name: one for one in self.decoder.get_inputs()}
        return {
            name: np.zeros((rows, inputs[name].shape[1], 0, inputs[name].shape[3]), _TYPES[inputs[name].type])
            for name in self._cache_names()
        }
