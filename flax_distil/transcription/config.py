"""Settings shared by the jobs that transcribe: pseudo-label, eval, transcribe."""

import dataclasses

from flax_distil.checkpoints.model_config import ModelSourceConfig
from flax_distil.core.checks import check_channel, check_positive
from flax_distil.core.errors import InputError
from flax_distil.data.remote.retries import RetryPolicy
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.decoding.options import SearchOptions
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.parallel.config import ParallelConfig
from flax_distil.text.normalizers import check_normalizer
from flax_distil.transcription.options import TranscriptionOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptionConfig(ParallelConfig, ModelSourceConfig):
    """Settings of a job that transcribes.

    Attributes:
        model_name_or_path: Whisper checkpoint: a Hugging Face or CTranslate2 folder, or a Hub id.
        assistant_model_name_or_path: Student that drafts tokens, which the model checks several at a time:
            the same transcripts sooner. Its encoder does not run where it is the model's.
        num_assistant_tokens: Most tokens of a draft, which ends earlier where the student is unsure; by
            default 5, on a CPU 3.
        language: Language of the speech, name or code, of Whisper's or of the checkpoint's own; auto detects
            it. By default what the checkpoint says, which is detection in most multilingual ones.
        multilingual: Detect the language of every window, not only of the first.
        task: transcribe, or translate into English; by default the checkpoint's, or transcribe.
        return_timestamps: Add timestamps of segments.
        generation_max_length: Most tokens per window of 30 s; by default the checkpoint's max_length.
        num_beams: Beams of the search at temperature 0; 1 takes the likeliest token.
        length_penalty: Rank beams by ((5 + length) / 6) to this power; by default by their length.
        patience: Wait for num_beams times as many finished beams.
        temperatures: Tried in turn while a window fails a threshold; by default 0, which draws nothing.
        best_of: At a temperature, draw this often and keep the likeliest.
        top_k: At a temperature, draw from this many likeliest tokens.
        top_p: At a temperature, draw from the fewest tokens whose probabilities add to this.
        seed: What draws depend on.
        compression_ratio_threshold: A window whose text compresses better fails; 2.4 is usual; off: no test.
        token_compression_ratio_threshold: A window whose tokens compress better fails; 1.35 is usual; off: no
            test.
        logprob_threshold: A window of lower average log-probability fails; -1 is usual; off: no test.
        no_speech_threshold: A window fails not, and is silent, if that is likelier than this; 0.6 is usual;
            off: no test.
        repetition_penalty: Divide the logits of tokens that a window has already by this; 1 is none.
        no_repeat_ngram_size: Let no window have a run of so many tokens twice; 0 allows it.
        suppress_tokens: Ids of tokens that are never written; -1 stands for the checkpoint's list, which is
            the default.
        max_initial_timestamp: Seconds, the latest first timestamp of a window; by default the checkpoint's.
        prompt: Text that might have come before: its spelling and style are followed.
        carry_initial_prompt: Long recordings: prompt every window with the prompt, not only the first.
        hotwords: Names and terms that every window is prompted with.
        prefix: How every transcript begins.
        dtype: What the model computes in: float32, bfloat16 or float16.
        per_device_eval_batch_size: Recordings per device.
    """

    model_name_or_path: str
    assistant_model_name_or_path: str | None = None
    num_assistant_tokens: int | None = None
    language: str | None = None
    multilingual: bool = False
    task: str | None = None
    return_timestamps: bool = False
    generation_max_length: int | None = None
    num_beams: int = 1
    length_penalty: float | None = None
    patience: float = 1.0
    temperatures: list[float] | None = None
    best_of: int = 1
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    compression_ratio_threshold: float | str | None = None
    token_compression_ratio_threshold: float | str | None = None
    logprob_threshold: float | str | None = None
    no_speech_threshold: float | str | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    suppress_tokens: list[int] | None = None
    max_initial_timestamp: float | None = None
    prompt: str | None = None
    carry_initial_prompt: bool = False
    hotwords: str | None = None
    prefix: str | None = None
    dtype: str = "float32"
    per_device_eval_batch_size: int = 16

    def __post_init__(self) -> None:
        check_positive(self, "generation_max_length", "per_device_eval_batch_size", "num_assistant_tokens")
        _ = self.options, self.compute, self.mesh_shape  # check the rest

    @property
    def options(self) -> TranscriptionOptions:
        """What to transcribe into."""
        return TranscriptionOptions(
            language=self.language,
            multilingual=self.multilingual,
            task=self.task,
            return_timestamps=self.return_timestamps,
            max_new_tokens=self.generation_max_length,
            search=SearchOptions(
                num_beams=self.num_beams,
                length_penalty=self.length_penalty,
                patience=self.patience,
                best_of=self.best_of,
                top_k=self.top_k,
                top_p=self.top_p,
            ),
            temperature=tuple(self.temperatures or [0.0]),
            seed=self.seed,
            compression_ratio_threshold=self.compression_ratio_threshold,
            token_compression_ratio_threshold=self.token_compression_ratio_threshold,
            logprob_threshold=self.logprob_threshold,
            no_speech_threshold=self.no_speech_threshold,
            repetition_penalty=self.repetition_penalty,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            suppress_tokens=None if self.suppress_tokens is None else tuple(self.suppress_tokens),
            max_initial_timestamp=self.max_initial_timestamp,
            prompt=self.prompt,
            carry_initial_prompt=self.carry_initial_prompt,
            hotwords=self.hotwords,
            prefix=self.prefix,
        )

    @property
    def compute(self) -> ComputeOptions:
        """How the model computes."""
        return ComputeOptions(dtype=self.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetTranscriptionConfig(TranscriptionConfig):
    """Settings of a job that transcribes data sets.

    Attributes:
        dataset_name: Hub id, save_to_disk folder, audio folder, Parquet or JSONL file; several joined by +.
        dataset_config_name: Configuration of the data set; joined by + for several.
        dataset_split_name: Split of the data set; joined by + for several.
        dataset_cache_dir: Where data sets are downloaded to and converted.
        source_retry_seconds: A server that fails is asked again for so long before the run ends.
        audio_column_name: Column of recordings; joined by + for several data sets.
        channel: Channel of the recordings to take, counted from 0; by default the mean of all.
        max_samples: Use only this many samples of each data set.
        normalizer: How texts are compared: whisper (as published figures), basic_keep_marks (for languages
            with vowel signs, and for Turkish), indic, or none.
        dataloader_num_workers: Threads that decode audio; by default the machine's cores.
    """

    dataset_name: str
    dataset_config_name: str | None = None
    dataset_split_name: str | None = None
    dataset_cache_dir: str | None = None
    source_retry_seconds: float = 1800.0
    audio_column_name: str = "audio"
    channel: int | None = None
    max_samples: int | None = None
    normalizer: str = "whisper"
    dataloader_num_workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "max_samples", "dataloader_num_workers")
        check_normalizer(self.normalizer)
        check_channel(self.channel)
        if self.source_retry_seconds < 0:
            raise InputError(f"source_retry_seconds {self.source_retry_seconds:g} is below 0")

    @property
    def retries(self) -> RetryPolicy:
        """When a server is asked again."""
        return RetryPolicy.limited(self.source_retry_seconds)

    def dataset_spec(self, text_column: str | None) -> DatasetSpec:
        """Return the data sets of ``dataset_name``, and how they are opened."""
        return DatasetSpec(
            name=self.dataset_name,
            config_name=self.dataset_config_name,
            split=self.dataset_split_name,
            audio_column=self.audio_column_name,
            text_column=text_column,
            max_samples=self.max_samples,
            cache_dir=self.dataset_cache_dir,
            channel=self.channel,
            policy=self.retries,
        )
