"""Detect speech in a recording, by Silero's network or by loudness alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flax_distil.core.arrays import Bool, Float
from flax_distil.core.errors import InputError

VadName = Literal["auto", "silero", "energy"]
"""``auto`` is Silero where it is installed."""

FRAME_SAMPLES = 512
"""Samples of one frame, 32 ms: what Silero's network takes at 16 kHz."""

CONTEXT_SAMPLES = 64
"""Samples before a frame that the network sees with it."""

BATCH_FRAMES = 512
"""Frames that go through the network at a time: 16 s."""

THRESHOLD = 0.5
"""Probability that speech starts at: the default of Silero's own tools."""

BELOW_THRESHOLD, LEAST_NEG_THRESHOLD = 0.15, 0.01
"""It falls silent so much below that, but not below the least: their defaults too."""

WINDOW_FRAMES = 936
"""The loudness of a frame is compared with the 30 s around it."""

NOISE_PERCENTILE, SPEECH_PERCENTILE = 10, 95
ABOVE_NOISE_DB, BELOW_SPEECH_DB = 8.0, 40.0
"""Speech is this much louder than the noise, and at most this much fainter than loud speech."""

SILENCE_POWER = 1e-10
"""Mean square of what counts as digital silence: -100 dB."""


@dataclass(frozen=True, kw_only=True)
class VadOptions:
    """What counts as speech, under the names of faster-whisper's ``vad_parameters``.

    Attributes:
        threshold: Probability that speech starts at, 0.5 by default; Silero's network alone has one.
        neg_threshold: Probability below which it ends; by default 0.15 less.
        min_speech_duration_ms: Speech that is shorter is none.
        max_speech_duration_s: Speech that lasts longer is cut at its longest pause; None cuts none.
        min_silence_duration_ms: A longer silence ends speech.
        speech_pad_ms: So much before and behind speech is kept with it.

    Raises:
        InputError: if a value is out of range.
    """

    threshold: float | None = None
    neg_threshold: float | None = None
    min_speech_duration_ms: int | float = 96
    max_speech_duration_s: int | float | None = None
    min_silence_duration_ms: int | float = 2000
    speech_pad_ms: int | float = 400

    def __post_init__(self) -> None:
        for name in ("threshold", "neg_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise InputError(f"{name} {value:g} of voice activity is not between 0 and 1")
        if self.ends > self.starts:
            raise InputError(
                f"neg_threshold {self.ends:g} of voice activity is above threshold {self.starts:g}: speech "
                "would never begin"
            )
        for name in ("min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} {getattr(self, name):g} is not a number of at least 0")
        if self.max_speech_duration_s is not None and not self.max_speech_duration_s >= 1:
            raise InputError(f"max_speech_duration_s {self.max_speech_duration_s:g} is below 1")

    @property
    def starts(self) -> float:
        """The probability that speech starts at."""
        return THRESHOLD if self.threshold is None else self.threshold

    @property
    def ends(self) -> float:
        """The probability below which it ends."""
        if self.neg_threshold is not None:
            return self.neg_threshold
        return max(self.starts - BELOW_THRESHOLD, LEAST_NEG_THRESHOLD)


USUAL = VadOptions()


class VoiceActivity:
    """Tells speech from silence, frame by frame; recordings of any length, in bounded memory.

    May be used from several threads at once.

    Args:
        vad: How: ``auto``, ``silero`` or ``energy``.
        options: What counts as speech.

    Attributes:
        name: How, ``auto`` resolved.
        options: What counts as speech.

    Raises:
        InputError: if Silero is asked for and not installed, or thresholds are given that loudness lacks.
    """

    def __init__(self, vad: VadName = "auto", options: VadOptions = USUAL):
        installed = all(find_spec(module) for module in ("silero_vad", "onnxruntime"))
        if vad == "silero" and not installed:
            raise InputError(
                "vad is 'silero', which is not installed: run pip install 'flax-distil[vad]', "
                "or take vad 'energy'"
            )
        self.name: Literal["silero", "energy"] = "energy" if vad == "energy" or not installed else "silero"
        self.options = options
        if self.name == "energy" and (options.threshold, options.neg_threshold) != (None, None):
            raise InputError(
                "threshold and neg_threshold are probabilities of Silero's network, and vad 'energy' has "
                "none: leave them out, or run pip install 'flax-distil[vad]'"
            )
        self._network = _open_network() if self.name == "silero" else None

    def __call__(
        self, blocks: Iterable[Float[np.ndarray, " _"]]
    ) -> tuple[Bool[np.ndarray, " frames"], Float[np.ndarray, " frames"]]:
        """Go once over a recording.

        Args:
            blocks: Mono samples at 16 kHz, in pieces of any size.

        Returns:
            Which frames of 512 samples hold speech, and how loud all of them are, in dB of full
            scale; the last frame is filled up with silence.
        """
        levels, probabilities = [], []
        state = np.zeros((2, 1, 1, 128), np.float32)  # of the network's LSTM: hidden, cell
        context = np.zeros(CONTEXT_SAMPLES, np.float32)
        for frames in _in_frames(blocks):
            power = np.mean(np.square(frames), axis=1)
            levels.append(10 * np.log10(np.maximum(power, SILENCE_POWER)))
            if self._network is not None:
                before = np.concatenate([context[None], frames[:-1, -CONTEXT_SAMPLES:]])
                context = frames[-1, -CONTEXT_SAMPLES:]
                found, *state = self._network.run(
                    ["speech_probs", "hn", "cn"],
                    {"input": np.concatenate([before, frames], axis=1), "h": state[0], "c": state[1]},
                )
                probabilities.append(found.reshape(-1))
        levels_F = np.concatenate([*levels, np.zeros(0, np.float32)])
        if self.name == "energy":
            return _loud(levels_F), levels_F
        probability_F = np.concatenate([*probabilities, np.zeros(0, np.float32)])
        return _with_hysteresis(probability_F, self.options.starts, self.options.ends), levels_F


def _open_network() -> Any:
    """Open Silero's network by its file: importing silero_vad would load torch, which it does not need."""
    import onnxruntime

    package = find_spec("silero_vad")
    assert package is not None
    assert package.origin is not None
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        Path(package.origin).parent / "data" / "silero_vad_16k_sequence.onnx",
        sess_options=options,
        providers=["CPUExecutionProvider"],
    )


def _in_frames(blocks: Iterable[Float[np.ndarray, " _"]]) -> Iterator[Float[np.ndarray, "frames 512"]]:
    """Yield at most :data:`BATCH_FRAMES` frames at a time, the same however the blocks were cut."""
    size = BATCH_FRAMES * FRAME_SAMPLES
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= size:
            yield rest[:size].reshape(-1, FRAME_SAMPLES)
            rest = rest[size:]
    if len(rest):
        padded = np.pad(rest, (0, -len(rest) % FRAME_SAMPLES))
        yield padded.reshape(-1, FRAME_SAMPLES)


def _with_hysteresis(
    probability_F: Float[np.ndarray, " frames"], starts: float = USUAL.starts, ends: float = USUAL.ends
) -> Bool[np.ndarray, " frames"]:
    """Speech starts at one probability and goes on until it falls below a smaller one."""
    decided = (probability_F >= starts) | (probability_F < ends)
    last = np.maximum.accumulate(np.where(decided, np.arange(len(probability_F)), -1))
    return np.where(last >= 0, probability_F[last] >= starts, False)


def _loud(levels_F: Float[np.ndarray, " frames"]) -> Bool[np.ndarray, " frames"]:
    """Compare each frame with the faint and the loud ones of the 30 s around it."""
    threshold_F = np.empty_like(levels_F)
    step = WINDOW_FRAMES // 3
    for start in range(0, len(levels_F), step):
        around = levels_F[max(0, start - step) : start + 2 * step]
        noise, speech = np.percentile(around, [NOISE_PERCENTILE, SPEECH_PERCENTILE])
        threshold_F[start : start + step] = max(noise + ABOVE_NOISE_DB, speech - BELOW_SPEECH_DB)
    return levels_F > threshold_F
