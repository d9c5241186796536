"""A checkpoint for batches of recordings, whose weights are read when they are first needed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from flax_distil.audio.constants import CHUNK_SECONDS
from flax_distil.core.errors import InputError
from flax_distil.data.fingerprints import encoder_fingerprint
from flax_distil.data.window_states import WindowStates
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.pipeline.transcription_model import configured_model
from flax_distil.transcription.config import TranscriptionConfig
from flax_distil.transcription.generator import EncoderOutput
from flax_distil.transcription.short_form import ShortFormTranscriber


class BatchTranscriber:
    """A checkpoint for batches of recordings.

    Its weights are read when they are first needed. Make it before the data are opened, so that whatever does
    not fit is known before anything large is read.

    Attributes:
        options: What it transcribes into, with the language and the task of the checkpoint if none are given.
        is_multilingual: Whether prompts name a language.
        normalize: How transcripts are compared with references.
    """

    def __init__(self, config: TranscriptionConfig, partitioner: Partitioner):
        """Read the small files of the checkpoint.

        Raises:
            InputError: If there is no such checkpoint, the options do not fit it, or it hears less than 30 s
                at a time.
        """
        self._config, self._partitioner = config, partitioner
        self._model = configured_model(config, partitioner)
        if self._model.window_seconds != CHUNK_SECONDS:
            raise InputError(
                f"{self._model.name!r} hears {self._model.window_seconds:g} s at a time, and recordings are "
                f"cut to {CHUNK_SECONDS} s for labels: label with the teacher that it was made of"
            )
        self.options = self._model.chosen
        self.is_multilingual = self._model.is_multilingual
        self.normalize = self._model.normalize
        self._compiled: set[int] = set()
        self._loaded: ShortFormTranscriber | None = None

    def load(self) -> ShortFormTranscriber:
        """Read the weights onto the devices, unless they are there, and return the transcriber.

        Raises:
            InputError: If tensors are missing, unexpected or misshapen.
        """
        if self._loaded is None:
            self._loaded = ShortFormTranscriber(self._model.load())
        return self._loaded

    def fingerprint(self) -> str:
        """Return a digest of the weights, which are read if they were not."""
        return self._model.fingerprint()

    def warm_up(self, batch_size: int) -> float:
        """Compile for batches of this size, unless that was done, and return the seconds it took."""
        if batch_size in self._compiled:
            return 0.0
        self._compiled.add(batch_size)
        return self.load().warm_up(batch_size)

    def keep_encoder_states(self, folder: Path) -> None:
        """Keep the encoder outputs of all windows that are transcribed from now on, for training; see
        :class:`WindowStates`.

        Args:
            folder: Folder of the states, in which training looks for them.
        """
        generator, partitioner = self.load().generator, self._partitioner
        encoder = partitioner.device_get(generator.params["encoder"])
        kept = WindowStates(
            folder,
            fingerprint=encoder_fingerprint(encoder, generator.shape.compute.dtype),
            positions=generator.config.max_source_positions,
            width=generator.config.d_model,
        )

        def encode_and_keep(
            samples_BW: np.ndarray, encode: Callable[[np.ndarray], EncoderOutput]
        ) -> EncoderOutput:
            encoder_out = encode(samples_BW)
            kept.add(samples_BW, partitioner.local_rows(encoder_out["encoder_out_BSD"]))
            return encoder_out

        generator.encoder_cache = encode_and_keep

    def batch_size(self) -> int:
        """Return the rows of this process's batches."""
        return self._partitioner.local_batch_shards * self._config.batches.per_device_eval_batch_size
