"""What every job that transcribes has in common: its settings, its model, its loop over batches."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from flax_distil.core import InputError
from flax_distil.model import ComputeOptions
from flax_distil.parallel import batch_spec, data_mesh
from flax_distil.text import Normaliser, WhisperTokenizer, normaliser
from flax_distil.transcription import DispatchedBatch, ShortFormTranscriber, Transcript, TranscriptionOptions
from flax_distil.weights import load_checkpoint
from flax_distil.workflows.distil_models import read_tokenizer
from flax_distil.workflows.output_folder import parameter_count


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechJobConfig:
    """Settings of a job that transcribes.

    Attributes:
        model_name_or_path: Whisper checkpoint: a Hugging Face or CTranslate2 folder, or a Hub id.
        model_revision: Branch, tag or commit of a model on the Hub.
        language: Language of the speech, name or code; by default multilingual models detect it.
        task: transcribe, or translate into English.
        return_timestamps: Write timestamps of segments.
        generation_max_length: Most tokens generated per recording; by default as many as the model
            has positions.
        dtype: What the model computes in: float32, bfloat16 or float16.
        per_device_eval_batch_size: Recordings per device and batch.
        output_dir: Folder of the results.
        overwrite_output_dir: Allow a folder that is not empty.
    """

    model_name_or_path: str
    model_revision: str | None = None
    language: str | None = None
    task: str = "transcribe"
    return_timestamps: bool = False
    generation_max_length: int | None = None
    dtype: str = "float32"
    per_device_eval_batch_size: int = 16
    output_dir: str
    overwrite_output_dir: bool = False

    def __post_init__(self) -> None:
        check_positive(self, ("generation_max_length", "per_device_eval_batch_size"))
        _ = self.options, self.compute  # check the rest

    @property
    def options(self) -> TranscriptionOptions:
        """What to transcribe into."""
        return TranscriptionOptions(
            language=self.language,
            task=self.task,
            return_timestamps=self.return_timestamps,
            max_new_tokens=self.generation_max_length,
        )

    @property
    def compute(self) -> ComputeOptions:
        """How the model computes."""
        return ComputeOptions(dtype=self.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetJobConfig(SpeechJobConfig):
    """Settings of a job that transcribes data sets.

    Attributes:
        dataset_name: Hub id, save_to_disk folder, audio folder, Parquet or JSONL file; several
            joined by +.
        dataset_config_name: Configuration of the data set; joined by + for several.
        dataset_split_name: Split, slices allowed; joined by + for several.
        dataset_cache_dir: Where data sets are downloaded to and converted.
        audio_column_name: Column of recordings.
        max_samples: Use only this many samples of each data set.
        dataloader_num_workers: Threads that decode audio; by default the machine's cores.
    """

    dataset_name: str
    dataset_config_name: str | None = None
    dataset_split_name: str | None = None
    dataset_cache_dir: str | None = None
    audio_column_name: str = "audio"
    max_samples: int | None = None
    dataloader_num_workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, ("max_samples", "dataloader_num_workers"))


class TranscribedSample(NamedTuple):
    """One recording of a batch and what was heard in it.

    Attributes:
        index: row in the data set.
        sample_id: stable name.
        duration_seconds: length of the recording.
        reference: reference text; "" if there is none.
        transcript: the result.
    """

    index: int
    sample_id: str
    duration_seconds: float
    reference: str
    transcript: Transcript


def check_positive(config: Any, names: Iterable[str]) -> None:
    """Raise ``InputError`` if a count is given and below 1."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise InputError(f"{name} {value} is below 1")


class SpeechModel:
    """The checkpoint of a job: looked at before any work, loaded when the rest is known to be right.

    Attributes:
        tokenizer: of the checkpoint.
        normalise: how transcripts are compared.
        parameters: numbers in its weights; 0 before :meth:`load`.
    """

    def __init__(self, config: SpeechJobConfig):
        """Read the small files and check that the job's options suit them.

        Raises:
            InputError: if there is no such checkpoint, or language, task or length do not suit it.
        """
        described = load_checkpoint(
            config.model_name_or_path, config_only=True, revision=config.model_revision
        )
        self._config, self._shape, self._mesh = config, described.config, data_mesh()
        self.tokenizer: WhisperTokenizer
        self.tokenizer, self._settings = read_tokenizer(described.files)
        self.parameters = 0
        self.normalise = self._normaliser()
        self._transcriber({})

    @property
    def is_multilingual(self) -> bool:
        """Whether prompts name a language."""
        return self.tokenizer.special.is_multilingual

    def batch_size(self, samples: int) -> int:
        """Return rows per batch over all devices, no more than ``samples`` need."""
        devices = self._mesh.size
        return devices * min(self._config.per_device_eval_batch_size, -(-samples // devices))

    def load(self) -> ShortFormTranscriber:
        """Read the weights onto all devices.

        Raises:
            InputError: if tensors are missing, unexpected or misshapen.
        """
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        checkpoint = load_checkpoint(
            self._config.model_name_or_path,
            dtype=jnp.dtype(self._config.dtype),
            revision=self._config.model_revision,
            sharding=lambda path: everywhere,
        )
        self.parameters = parameter_count(checkpoint)
        return self._transcriber(checkpoint.params)

    def _transcriber(self, params: dict[str, Any]) -> ShortFormTranscriber:
        return ShortFormTranscriber(
            self._shape,
            params,
            self.tokenizer,
            self._settings,
            options=self._config.options,
            compute=self._config.compute,
            batch_sharding=NamedSharding(self._mesh, batch_spec("samples_BW")),
        )

    def _normaliser(self) -> Normaliser:
        if self._config.task == "translate" or not self.is_multilingual:
            return normaliser("en")
        return normaliser(self._config.language)


def transcribe_batches(
    transcriber: ShortFormTranscriber, batches: Iterable[Mapping[str, Any]]
) -> Iterator[list[TranscribedSample]]:
    """Transcribe batches of an ``EvaluationPipeline``, one list per batch, padding left out.

    The next batch is read and sent while the device works on the last one.
    """
    waiting: tuple[DispatchedBatch, Mapping[str, Any]] | None = None
    for batch in batches:
        dispatched = transcriber.dispatch(batch["samples_BW"]), batch
        if waiting is not None:
            yield _collected(transcriber, *waiting)
        waiting = dispatched
    if waiting is not None:
        yield _collected(transcriber, *waiting)


def _collected(
    transcriber: ShortFormTranscriber, dispatched: DispatchedBatch, batch: Mapping[str, Any]
) -> list[TranscribedSample]:
    transcripts = transcriber.collect(dispatched)
    return [
        TranscribedSample(
            int(batch["index_B"][row]),
            batch["ids"][row],
            float(batch["duration_B"][row]),
            batch["references"][row],
            transcripts[row],
        )
        for row in range(len(transcripts))
        if batch["valid_B"][row]
    ]
