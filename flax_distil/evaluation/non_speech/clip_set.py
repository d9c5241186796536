"""The clips without speech as a data set, and how models decode them: without and with thresholds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax_distil.audio.non_speech.clips import NonSpeechClip
from flax_distil.audio.segmentation import flac_bytes
from flax_distil.data.dataset import DURATION_COLUMN, ID_COLUMN, SpeechDataset
from flax_distil.evaluation.config import EvalConfig
from flax_distil.transcription.options import OFF, Thresholds, TranscriptionOptions, long_form_defaults

THRESHOLDS_OFF = "non-speech, thresholds off"
THRESHOLDS_ON = "non-speech, thresholds on"


def non_speech_options(config: EvalConfig) -> Mapping[str, TranscriptionOptions]:
    """Return how the clips are decoded, by what reports call the set; nothing if it is not asked for.

    Each clip is one window. Without thresholds it is decoded once, at the first temperature. With thresholds,
    those that are not given have their usual values, and so have the temperatures.
    """
    if not config.non_speech_set.non_speech:
        return {}
    one_window = dataclasses.replace(
        config.decoding,
        vad=None,
        vad_parameters=type(config.decoding.vad_parameters)(),
        word_timestamps=False,
        condition_on_prev_tokens=False,
    )
    off: dict[str, Any] = dict.fromkeys((f"{name}_threshold" for name in Thresholds._fields), OFF)
    return {
        THRESHOLDS_OFF: dataclasses.replace(one_window, temperature=one_window.temperatures[:1], **off),
        THRESHOLDS_ON: long_form_defaults(one_window, timestamps=False),
    }


def open_non_speech(config: EvalConfig) -> dict[str, SpeechDataset]:
    """Return the data set of the clips by the names of :func:`non_speech_options`."""
    names = non_speech_options(config)
    if not names:
        return {}
    data = make_clip_set(config.non_speech_set.non_speech_samples, seed=config.decoding.seed)
    return {name: dataclasses.replace(data, name=name) for name in names}


def make_clip_set(samples: int, *, seed: int) -> SpeechDataset:
    """Return the first clips of the set of a seed as a data set in memory, without reference texts."""
    import datasets

    clips = [NonSpeechClip.of(seed, number) for number in range(samples)]
    columns = {
        "audio": [{"bytes": flac_bytes(clip.samples()), "path": f"{clip.name}.flac"} for clip in clips],
        ID_COLUMN: [clip.name for clip in clips],
        DURATION_COLUMN: [clip.seconds for clip in clips],
    }
    return SpeechDataset(name="non-speech", table=datasets.Dataset.from_dict(columns))
