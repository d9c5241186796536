"""From files to samples on the host, from samples to log-mel features on the device."""

from flax_distil.audio.augmentation import (
    AugmentationConfig,
    Talkers,
    augment_samples,
    draw_recorded_noise,
    draw_speed,
    mix_noise,
    perturb_speed,
    spec_augment,
)
from flax_distil.audio.clip import pad_or_trim, to_int16
from flax_distil.audio.constants import (
    CHUNK_FRAMES,
    CHUNK_SAMPLES,
    CHUNK_SECONDS,
    HOP_LENGTH,
    N_FFT,
    SAMPLING_RATE,
)
from flax_distil.audio.decoding import (
    audio_duration,
    audio_encoding,
    decode_audio,
    decode_channels,
    lasts_longer_than,
    open_audio,
)
from flax_distil.audio.errors import AudioError
from flax_distil.audio.long_mel import BLOCK_SAMPLES, LongMel, long_log_mel
from flax_distil.audio.mel import as_float, log10_mel, log_mel, mel_filters
from flax_distil.audio.segmentation import Segment, cut_segments, speech_segments
from flax_distil.audio.sources import raw_format
from flax_distil.audio.vad_regions import speech_regions
from flax_distil.audio.voice_activity import VadName, VadOptions, VoiceActivity

__all__ = [
    "BLOCK_SAMPLES",
    "CHUNK_FRAMES",
    "CHUNK_SAMPLES",
    "CHUNK_SECONDS",
    "HOP_LENGTH",
    "N_FFT",
    "SAMPLING_RATE",
    "AudioError",
    "AugmentationConfig",
    "LongMel",
    "Segment",
    "Talkers",
    "VadName",
    "VadOptions",
    "VoiceActivity",
    "as_float",
    "audio_duration",
    "audio_encoding",
    "augment_samples",
    "cut_segments",
    "decode_audio",
    "decode_channels",
    "draw_recorded_noise",
    "draw_speed",
    "lasts_longer_than",
    "log10_mel",
    "log_mel",
    "long_log_mel",
    "mel_filters",
    "mix_noise",
    "open_audio",
    "pad_or_trim",
    "perturb_speed",
    "raw_format",
    "spec_augment",
    "speech_regions",
    "speech_segments",
    "to_int16",
]
