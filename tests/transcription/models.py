"""Real checkpoints with all that a transcriber needs."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_distil.audio.mel import log_mel
from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.core.arrays import Params
from flax_distil.model.assembly import bind_encoder
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.text.generation_settings import GenerationSettings
from flax_distil.text.tokenizer import WhisperTokenizer
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.short_form import ShortFormTranscriber


@dataclasses.dataclass(frozen=True)
class Model:
    """A checkpoint folder, opened once; ``params`` is empty if only refusals are wanted of it."""

    folder: Path
    config: WhisperConfig
    params: Params

    @classmethod
    def open(cls, folder: Path, *, config_only: bool = False) -> "Model":
        checkpoint = load_checkpoint(folder, config_only=config_only)
        return cls(folder, checkpoint.config, checkpoint.params)

    def transcriber(
        self, params: Params | None = None, *, max_length: int | None = None, **options: Any
    ) -> ShortFormTranscriber:
        """Return a transcriber with a tokenizer and settings of its own."""
        tokenizer = WhisperTokenizer.from_pretrained(self.folder)
        settings = GenerationSettings.from_folder(self.folder, tokenizer.special)
        if max_length is not None:
            settings = dataclasses.replace(settings, max_length=max_length)
        return ShortFormTranscriber(WhisperGenerator(
            self.config, params or self.params, tokenizer, settings,
            options=TranscriptionOptions(**options), compute=ComputeOptions(),
        ))  # fmt: skip

    def encode(self, samples_BW: np.ndarray) -> jax.Array:
        """Return encoder states by a program that is not the transcriber's."""
        return _encode(self.config, self.params["encoder"], samples_BW)


@functools.partial(jax.jit, static_argnums=0)
def _encode(config: WhisperConfig, encoder: Params, samples_BW: jax.Array) -> jax.Array:
    mel_BRM = log_mel(samples_BW, num_mel_bins=config.num_mel_bins)
    return bind_encoder(config, ComputeOptions(), encoder)(mel_BRM)[0]
