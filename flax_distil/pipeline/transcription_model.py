"""A checkpoint that transcribes: its small files are read at once, its weights when they are needed."""

import dataclasses
import functools
from typing import Any

import jax

from flax_distil.checkpoints.checkpoint import Checkpoint, load_checkpoint
from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.load_on_cpu import load_on_cpu
from flax_distil.checkpoints.sharing import equal_when_rounded
from flax_distil.checkpoints.tokenizer import has_tokenizer, read_tokenizer
from flax_distil.core.arrays import Params
from flax_distil.data.fingerprints import weights_fingerprint
from flax_distil.model.assembly import decode_shapes, held_params, to_decode_params, whisper_shapes
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.model.config import WhisperConfig
from flax_distil.parallel.partitioner import Partitioner
from flax_distil.text.normalizers import Normalizer, get_model_normalizer
from flax_distil.transcription.assisted_generator import Assistant, AssistedGenerator
from flax_distil.transcription.config import DatasetConfig, TranscriptionConfig
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions


class TranscriptionModel:
    """A checkpoint whose weights are read when they are first needed.

    Make it before anything large is opened, so that whatever does not fit is known at once.

    Attributes:
        name: Name of the checkpoint in messages.
        options: What to transcribe into, and how.
        parameters: Number of parameters.
        chosen: The options, with the language and the task of the checkpoint if none are given.
        is_multilingual: Whether prompts name a language.
    """

    def __init__(
        self,
        source: str | ModelSource,
        partitioner: Partitioner,
        *,
        options: TranscriptionOptions,
        compute: ComputeOptions,
        assistant: str | ModelSource | None = None,
        num_assistant_tokens: int | None = None,
        normalizer: str = "whisper",
    ):
        """Read the small files of the checkpoint.

        Args:
            source: A Hugging Face or CTranslate2 folder, or a Hub id.
            partitioner: The devices to use.
            options: What to transcribe into, and how.
            compute: How the model computes.
            assistant: A student of the checkpoint that drafts for it; a folder or Hub id. It may be a decoder
                alone, which attends to the checkpoint's encoder.
            num_assistant_tokens: Maximum number of tokens of a draft; see ``AssistedGenerator``.
            normalizer: How transcripts are compared; see ``get_model_normalizer``.

        Raises:
            InputError: If there is no such checkpoint, or options or assistant do not fit it.
        """
        self.name, self._source = str(source), source
        self.options, self._partitioner = options, partitioner
        self._compute = compute.on(partitioner.mesh.devices.flat[0].platform)
        described = load_checkpoint(source, config_only=True)
        self._shape = described.config
        self._tokenizer, self._settings = read_tokenizer(described.files)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(whisper_shapes(self._shape)))
        self.is_multilingual = self._tokenizer.special.is_multilingual
        self.chosen = options.for_checkpoint(self._settings)
        self._normalizer = normalizer
        self._params: Params = {}
        self._loaded: WhisperGenerator | None = None
        self._assistant_source = assistant
        self._assistant = None if assistant is None else self._open_assistant(assistant, num_assistant_tokens)
        self._generator(options)  # it checks the options, and needs no weights before the first batch

    @functools.cached_property
    def normalize(self) -> Normalizer:
        """How transcripts are compared with references."""
        return get_model_normalizer(
            self.chosen.language,
            self.chosen.task,
            is_multilingual=self.is_multilingual,
            name=self._normalizer,
        )

    def load(self, *, encoder: Params | None = None) -> WhisperGenerator:
        """Read the weights onto the devices, unless they are there, and return the generator.

        Args:
            encoder: Encoder that is on the devices already, equal to the checkpoint's: it is used instead,
                and only the decoder is read. Not for a model with an assistant.

        Raises:
            InputError: If tensors are missing, unexpected or misshapen.
        """
        if self._loaded is None:
            if encoder is None:
                params = self._read(self._source).params
                self._params = self._put(self._shape, params)
                self._assistant = self._load_assistant(params["encoder"])
            else:
                decoder = self._read(self._source, branches=["decoder"]).params
                self._params = {**self._put(self._shape, decoder), "encoder": encoder}
            self._loaded = self._generator(self.options)
        return self._loaded

    def generator(self, options: TranscriptionOptions) -> WhisperGenerator:
        """Return a generator of the same weights with other options; nothing is compiled twice.

        Raises:
            InputError: If the options do not fit the checkpoint, or as :meth:`load`.
        """
        self.load()
        return self._generator(options)

    @property
    def window_seconds(self) -> float:
        """Seconds that the model hears at once."""
        return self._shape.window_seconds

    def fingerprint(self) -> str:
        """Return a digest of the weights, which are read if they were not."""
        self.load()
        return weights_fingerprint(self._partitioner.device_get(self._params))

    def _open_assistant(self, source: str | ModelSource, num_tokens: int | None) -> Assistant:
        """Return the assistant without its weights."""
        student = load_checkpoint(source, config_only=True, without_encoder=True)
        has_own_tokenizer = has_tokenizer(student.files)  # a decoder saved alone has none
        tokenizer = read_tokenizer(student.files)[0] if has_own_tokenizer else self._tokenizer
        return Assistant(config=student.config, params={}, tokenizer=tokenizer, num_tokens=num_tokens)

    def _load_assistant(self, encoder: Params) -> Assistant | None:
        """Return the assistant with its weights on the devices, without an encoder equal to the given one."""
        if self._assistant is None or self._assistant_source is None:
            return None
        params = dict(self._read(self._assistant_source, without_encoder=True).params)
        if "encoder" in params and equal_when_rounded(params["encoder"], encoder):
            del params["encoder"]
        return dataclasses.replace(self._assistant, params=self._put(self._assistant.config, params))

    def _read(self, source: str | ModelSource, **options: Any) -> Checkpoint:
        """Read a checkpoint; exactly beside an assistant, whose encoder is compared, and for int8."""
        is_exact = self._assistant is not None or self._compute.int8
        dtype = "float32" if is_exact else self._compute.dtype
        return load_on_cpu(source, dtype=dtype, **options)

    def _put(self, shape: WhisperConfig, params: Params) -> Params:
        specs = self._partitioner.weight_specs(decode_shapes(shape, int8=self._compute.int8))
        params = {**params, "decoder": to_decode_params(params["decoder"])}
        params = held_params(params, self._compute)
        placed: Params = self._partitioner.device_put(params, {branch: specs[branch] for branch in params})
        return placed

    def _generator(self, options: TranscriptionOptions) -> WhisperGenerator:
        model = self._shape, self._params, self._tokenizer, self._settings
        common: dict[str, Any] = {
            "options": options, "compute": self._compute, "partitioner": self._partitioner,
        }  # fmt: skip
        if self._assistant is None:
            return WhisperGenerator(*model, **common)
        return AssistedGenerator(*model, assistant=self._assistant, **common)


def configured_model(
    config: TranscriptionConfig, partitioner: Partitioner, name: str | None = None
) -> TranscriptionModel:
    """Open a checkpoint with the settings of a job; by default the job's own."""
    assistant = config.assistant.assistant_model_name_or_path
    data: DatasetConfig | None = getattr(config, "data", None)
    return TranscriptionModel(
        config.model_source(name or config.model.name),
        partitioner,
        options=config.options,
        compute=config.compute,
        assistant=None if assistant is None else config.model.assistant_source(assistant),
        num_assistant_tokens=config.assistant.num_assistant_tokens,
        normalizer="whisper" if data is None else data.reading.normalizer,
    )
