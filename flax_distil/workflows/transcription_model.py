"""A checkpoint opened to transcribe with: its small files at once, its weights when they are needed."""

from typing import Any

import jax
import jax.numpy as jnp

from flax_distil.data import weights_fingerprint
from flax_distil.model import ComputeOptions, whisper_shapes
from flax_distil.parallel import Runner
from flax_distil.text import Normaliser, normaliser
from flax_distil.transcription import TranscriptionOptions, WindowDecoder
from flax_distil.weights import load_checkpoint
from flax_distil.workflows.host_weights import load_on_host
from flax_distil.workflows.tokenizer import read_tokenizer


class TranscriptionModel:
    """A checkpoint whose weights are read when they are first needed.

    Make it before anything large is opened: whatever does not fit is known at once.

    Attributes:
        name: as it was asked for.
        options: what to transcribe into, and how.
        parameters: numbers in the weights.
        is_multilingual: whether prompts name a language.
        normalise: how transcripts are compared with references.
    """

    def __init__(self, name: str, runner: Runner, *, options: TranscriptionOptions, compute: ComputeOptions):
        """Read the small files of the checkpoint.

        Args:
            name: a Hugging Face or CTranslate2 folder, or a Hub id.
            runner: over the devices.
            options: what to transcribe into, and how.
            compute: dtype.

        Raises:
            InputError: if there is no such checkpoint, or the options do not fit it.
        """
        self.name, self.options, self._runner, self._compute = name, options, runner, compute
        described = load_checkpoint(name, config_only=True)
        self._shape = described.config
        self._tokenizer, self._settings = read_tokenizer(described.files)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(whisper_shapes(self._shape)))
        self.is_multilingual = self._tokenizer.special.is_multilingual
        self.normalise = self._normaliser()
        self._params: dict[str, Any] = {}
        self._loaded: WindowDecoder | None = None
        self._decoder({}, options)  # it checks the options, and touches no weights before the first batch

    def load(self) -> WindowDecoder:
        """Read the weights onto the devices, unless they are there, and return the decoder.

        Raises:
            InputError: if tensors are missing, unexpected or misshapen.
        """
        if self._loaded is None:
            checkpoint = load_on_host(self.name, dtype=jnp.dtype(self._compute.dtype))
            specs = self._runner.weight_specs(whisper_shapes(self._shape))
            self._params = self._runner.put(checkpoint.params, specs)
            self._loaded = self._decoder(self._params, self.options)
        return self._loaded

    def decoder(self, options: TranscriptionOptions) -> WindowDecoder:
        """Return a decoder of the same weights with other options; it compiles nothing that is there already.

        Raises:
            InputError: if the options do not fit the checkpoint, or as :meth:`load`.
        """
        self.load()
        return self._decoder(self._params, options)

    def fingerprint(self) -> str:
        """Return a digest of the weights, which are read if they were not."""
        self.load()
        return weights_fingerprint(self._runner.fetch(self._params))

    def _decoder(self, params: dict[str, Any], options: TranscriptionOptions) -> WindowDecoder:
        return WindowDecoder(
            self._shape,
            params,
            self._tokenizer,
            self._settings,
            options=options,
            compute=self._compute,
            runner=self._runner,
        )

    def _normaliser(self) -> Normaliser:
        if self.options.task == "translate" or not self.is_multilingual:
            return normaliser("en")
        return normaliser(self.options.language)
