"""Settings of pseudo-labelling."""

import dataclasses
import typing

from flax_distil.audio.vad_config import VadName
from flax_distil.checkpoints.hub.config import HubConfig
from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.core.nested import nested
from flax_distil.data.config import DurationConfig, SpeakerConfig
from flax_distil.storage.output_dir import OutputConfig, check_local
from flax_distil.transcription.config import FLAG_NAMES, LONG_FORM_OPTIONS, DatasetConfig, TranscriptionConfig
from flax_distil.transcription.options import TranscriptionOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig(TranscriptionConfig):
    """Transcribe a data set with a teacher and write it back with the transcripts.

    Attributes:
        decoding: What to transcribe into, and how.
        data: Data set to transcribe.
        id_column_name: Column with the names of recordings; by default id, and where there is none they are
            numbered.
        speakers: How recordings of one speaker are joined.
        durations: Which recordings are neither too short nor too long.
        encoder_cache_dir: Keep the outputs of the encoder in this folder (in bfloat16: 1.2 MB per recording
            with tiny, 3.8 MB with large). A distillation with cache_encoder_states and the same folder, of
            the same encoder, does not encode these recordings again.
        vad: Detector of speech, for cutting recordings of more than 30 s: auto, silero or energy.
        samples_per_shard: Number of source samples per Parquet file. A run that was killed repeats its
            unfinished files.
        output: Where the new data set is written.
        hub: Whether it is uploaded.
        hub_dataset_id: Repository on the Hub, as user/name; by default it has the name of output_dir and
            belongs to the user of the token.

    Raises:
        InputError: If a value is out of range.
    """

    decoding: TranscriptionOptions = nested(
        TranscriptionOptions(max_new_tokens=256),
        hide=LONG_FORM_OPTIONS,
        rename=FLAG_NAMES,
        help={
            "language": "Language of the speech, name or code; needed by multilingual teachers.",
            "max_new_tokens": "Maximum number of tokens per recording. The label of a recording that needs "
            "more is cut off, and Distil-Whisper trains on labels of at most 256.",
        },
    )
    data: DatasetConfig = nested(
        defaults={"text_column_name": None},
        help={
            "text_column_name": "Column of reference texts, for the WER; by default text where there is one."
        },
    )
    id_column_name: str | None = None
    speakers: SpeakerConfig = nested(SpeakerConfig())
    durations: DurationConfig = nested(
        DurationConfig(),
        help={
            "max_duration_in_seconds": "Leave out recordings that are longer than this, and join none to "
            "more (concatenate_audio); by default they are cut at silence into pieces of at most 30 s."
        },
        section="Main flags",
    )
    encoder_cache_dir: str | None = None
    vad: str = "auto"
    samples_per_shard: int = 1000
    output: OutputConfig = nested(
        help={
            "output_dir": "Folder of the new data set, here or in a bucket (gs://, s3://). The same "
            "command continues with what it has not finished there.",
            "overwrite_output_dir": "Replace the data set of an earlier run in output_dir; other files stay.",
        }
    )
    hub: HubConfig = nested(HubConfig())
    hub_dataset_id: str | None = None

    def __post_init__(self) -> None:
        check_positive(self, "samples_per_shard")
        if self.encoder_cache_dir:
            check_local("encoder_cache_dir", self.encoder_cache_dir)
        self.speakers.check_streaming(self.data.reading.streaming)
        if self.vad not in typing.get_args(VadName):
            expected = ", ".join(typing.get_args(VadName))
            raise InputError(f"vad {self.vad!r} is unknown: expected one of {expected}")
