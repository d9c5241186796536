"""What an evaluation measures: models, data sets, noise, latency."""

import dataclasses
import functools
import glob
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import get_args

from flax_distil.checkpoints.hub.model_source import ModelSource
from flax_distil.checkpoints.model_config import ModelConfig
from flax_distil.core.checks import check_positive
from flax_distil.core.errors import InputError
from flax_distil.core.files import user_path
from flax_distil.core.nested import nested
from flax_distil.data.config import NoiseDatasetConfig
from flax_distil.evaluation.gate import FailCondition, parse_condition
from flax_distil.evaluation.leaderboard.config import ProtocolConfig
from flax_distil.evaluation.leaderboard.decoding import leaderboard_options
from flax_distil.evaluation.leaderboard.sets import LeaderboardSet, find_sets
from flax_distil.evaluation.non_speech.config import NonSpeechSetConfig
from flax_distil.pipeline.transcribe_mode import TranscribeMode
from flax_distil.storage.output_dir import OutputConfig
from flax_distil.text.leaderboard_normalizer import LeaderboardNormalizer
from flax_distil.transcription.config import FLAG_NAMES, LONG_FORM_OPTIONS, DatasetConfig, TranscriptionConfig
from flax_distil.transcription.options import ModeName, TranscriptionOptions

SPECULATIVE = "speculative"

MODES = (*get_args(ModeName), SPECULATIVE)

NOISE_TYPES = ("white", "babble", "recorded")

_HIDDEN_OPTIONS = [
    name for name in LONG_FORM_OPTIONS if name != "condition_on_prev_tokens" and not name.startswith("vad")
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseCondition:
    """Noise that is added to recordings.

    Attributes:
        noise: One of ``NOISE_TYPES``; None leaves them as they are.
        snr: Signal-to-noise ratio in dB; None without noise.
    """

    noise: str | None = None
    snr: float | None = None

    @property
    def name(self) -> str:
        """What it is called in reports: ``clean``, or as ``white 10 dB``."""
        return "clean" if self.noise is None else f"{self.noise} {self.snr:g} dB"


CLEAN = NoiseCondition()

_PARTS = re.compile(r"(\d+)").split
"""Splits a name at its numbers, so that checkpoint-200 comes before checkpoint-1000."""


def _one_of(value: str | None, setting: str, models: Sequence[str]) -> Sequence[str | None]:
    """Return a setting of each model: one for all, or one for each."""
    values = [None] if value is None else [value] if len(models) == 1 else value.split("+")
    if len(values) not in (1, len(models)):
        raise InputError(
            f"{setting} {value!r} has {len(values)} values for {len(models)} models: give one, or one "
            "for each"
        )
    return [part or None for part in values] * (len(models) if len(values) == 1 else 1)


def _checkpoints(name: str) -> list[str]:
    """Return the folders that a pattern fits, those with smaller numbers first; otherwise the name."""
    if os.path.exists(user_path(name)):
        return [name]
    found = [path for path in glob.glob(str(user_path(name))) if os.path.isdir(path)] or [name]
    return sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in _PARTS(path)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig(TranscriptionConfig):
    """Measure word error rate and speed of checkpoints, without and with noise.

    Attributes:
        model: Checkpoints to measure.
        data: Data sets to measure them on.
        baseline_model: Checkpoint that the others are compared with; by default the first.
        mode: short (recordings of at most 30 s), vad, chunked or sequential (any length), or speculative,
            which is short with assistant_model_name_or_path. The other modes may have an assistant model too.
        chunks: How recordings are cut in mode chunked.
        decoding: What to transcribe into, and how.
        noise_types: Also measure in noise: white, babble (of other recordings of the data set) or recorded
            (of noise_dataset_name).
        snr_db: Signal-to-noise ratios in dB at which each noise is added, such as 40 30 20 10 5 0 -5 -10.
        recorded_noise: Recordings of noise.
        non_speech_set: Clips in which nobody speaks.
        rules: By whose rules texts are decoded and scored.
        latency_samples: Also transcribe this many recordings one at a time, all models in turns, and report
            the seconds that each takes, the decoder's apart. All models are in memory then.
        fail_if: End with exit status 3 if a model fails one of these conditions, such as "wer > 12.5" or
            "difference > 0.3", once the reports are written.
        output: Where reports are written.

    Raises:
        InputError: If a value is unknown or out of range.
    """

    model: ModelConfig = nested(
        help={
            "model_name_or_path": "Whisper checkpoints: Hugging Face or CTranslate2 folders, or Hub ids; "
            "joined by + for several. A pattern (runs/*/checkpoint-*) names all folders that it fits."
        }
    )
    data: DatasetConfig = nested(types={"text_column_name": str})
    baseline_model: str | None = None
    mode: str = "short"
    chunks: TranscribeMode = nested(
        TranscribeMode(mode="chunked"), hide=("mode",), types={"stride_length_s": float | None}
    )
    decoding: TranscriptionOptions = nested(TranscriptionOptions(), hide=_HIDDEN_OPTIONS, rename=FLAG_NAMES)
    noise_types: list[str] | None = None
    snr_db: list[float] | None = None
    recorded_noise: NoiseDatasetConfig = nested(NoiseDatasetConfig(), section="Main flags")
    non_speech_set: NonSpeechSetConfig = nested(NonSpeechSetConfig(), section="Main flags")
    rules: ProtocolConfig = nested(ProtocolConfig(), section="Main flags")
    latency_samples: int = 0
    fail_if: list[str] | None = None
    output: OutputConfig = nested(
        OutputConfig(output_dir=None),
        help={
            "output_dir": "Folder of results.json, predictions.csv and report.html, here or in a bucket; by "
            "default only tables are shown. The same command continues where an earlier one was stopped.",
            "overwrite_output_dir": "Replace the reports of an earlier run in output_dir; other files stay.",
        },
    )

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"mode {self.mode!r} is unknown: expected one of {', '.join(MODES)}")
        if self.latency_samples:
            check_positive(self, "latency_samples")
        if self.mode == SPECULATIVE and self.assistant.assistant_model_name_or_path is None:
            raise InputError(
                "mode speculative needs a student that drafts: name assistant_model_name_or_path"
            )
        self.transcribe_mode.check(self.options)
        _ = self.baseline, [self.model_source(name) for name in self.models.values()]
        self._check_noise()
        _ = self.fail_conditions
        if self.rules.is_leaderboard:
            self._check_leaderboard()

    @property
    def transcriber_mode(self) -> ModeName:
        """How recordings become windows."""
        return "short" if self.mode == SPECULATIVE else self.mode  # type: ignore[return-value]

    @property
    def options(self) -> TranscriptionOptions:
        """What to transcribe into; window after window, with the usual thresholds where none is given."""
        if self.rules.is_leaderboard:
            languages = {data_set.language for data_set in self.leaderboard_sets}
            return leaderboard_options(
                self.decoding, language=languages.pop() if len(languages) == 1 else None
            )
        return self.transcribe_mode.with_defaults(self.decoding)

    @property
    def transcribe_mode(self) -> TranscribeMode:
        """How recordings are transcribed."""
        return dataclasses.replace(self.chunks, mode=self.transcriber_mode)

    @functools.cached_property
    def models(self) -> Mapping[str, str]:
        """The checkpoints by what reports call them: the last part of their names where that is unique.

        Raises:
            InputError: If a name is empty or given twice.
        """
        names = [self.model.name]
        if not os.path.exists(user_path(self.model.name)):
            parts = (name.strip() for name in self.model.name.split("+"))
            names = [name for part in parts for name in _checkpoints(part)]
        for name in names:
            if not name or names.count(name) > 1:
                what = f"names {name!r} twice" if name else "has an empty name beside a '+'"
                raise InputError(f"model_name_or_path {self.model.name!r} {what}")
        short = [os.path.basename(os.path.abspath(name)) for name in names]
        return {
            label if short.count(label) == 1 else name: name for name, label in zip(names, short, strict=True)
        }

    def model_source(self, name: str) -> ModelSource:
        """Return where one of the models is; revisions and subfolders are joined by + as the models are."""
        names = list(self.models.values())
        return dataclasses.replace(
            super().model_source(name),
            revision=_one_of(self.model.model_revision, "model_revision", names)[names.index(name)],
            subfolder=_one_of(self.model.subfolder, "subfolder", names)[names.index(name)],
        )

    @property
    def baseline(self) -> str:
        """What reports call the checkpoint that others are compared with.

        Raises:
            InputError: If it is not among the models.
        """
        models = self.models
        if self.baseline_model is None:
            return next(iter(models))
        for label, name in models.items():
            if self.baseline_model in (label, name):
                return label
        raise InputError(
            f"baseline_model {self.baseline_model!r} is not among the models: name one of {', '.join(models)}"
        )

    @property
    def conditions(self) -> list[NoiseCondition]:
        """Clean speech, and each noise from the faintest to the loudest."""
        ratios = sorted(set(self.snr_db or ()), reverse=True)
        noises = dict.fromkeys(self.noise_types or ())
        return [CLEAN, *(NoiseCondition(noise=noise, snr=snr) for noise in noises for snr in ratios)]

    @property
    def fail_conditions(self) -> list[FailCondition]:
        """The conditions of ``fail_if``.

        Raises:
            InputError: If one is of another form or about an unknown figure.
        """
        return [parse_condition(text) for text in self.fail_if or ()]

    @property
    def leaderboard_sets(self) -> list[LeaderboardSet]:
        """The sets of the Open ASR Leaderboard that ``dataset_name`` names, under its protocol.

        Raises:
            InputError: If it names something else.
        """
        return find_sets(self.data.dataset_name)

    def _check_leaderboard(self) -> None:
        """Check that nothing is asked for that the leaderboard's protocol lays down, or does not have."""
        laid_down = {
            "mode": self.mode != "short",
            "noise_types": bool(self.noise_types),
            "latency_samples": bool(self.latency_samples),
            "non_speech": self.non_speech_set.non_speech,
            "dataset_config_name": self.data.dataset_config_name is not None,
            "dataset_split_name": self.data.dataset_split_name is not None,
        }
        for name, is_given in laid_down.items():
            if is_given:
                raise InputError(
                    f"{name} is given, and protocol {self.rules.protocol} has its own, or none: leave "
                    f"{name} out"
                )
        for language in {data_set.language for data_set in self.leaderboard_sets}:
            LeaderboardNormalizer(language)("1")  # the package that writes numbers as words may be missing

    def _check_noise(self) -> None:
        for noise in self.noise_types or ():
            if noise not in NOISE_TYPES:
                raise InputError(f"noise_types {noise!r} is unknown: expected {', '.join(NOISE_TYPES)}")
        if "babble" in (self.noise_types or ()) and self.data.reading.streaming:
            raise InputError(
                "noise_types babble is made of recordings from all over a data set, and streaming reads from "
                "front to back: leave one of them out"
            )
        for snr in self.snr_db or ():
            if not math.isfinite(snr):
                raise InputError(f"snr_db {snr:g} is not a number of dB")
        if bool(self.noise_types) != bool(self.snr_db):
            raise InputError("noise_types and snr_db go together: give both or neither")
        if ("recorded" in (self.noise_types or ())) != (self.recorded_noise.noise_dataset_name is not None):
            raise InputError("noise_types recorded and noise_dataset_name go together: give both or neither")
