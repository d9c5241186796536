"""Detect speech in a recording, by Silero's network or by loudness alone."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flax_distil.audio.vad_config import DEFAULT_VAD, VadName, VadOptions
from flax_distil.core.arrays import Bool, Float
from flax_distil.core.errors import InputError

NETWORK = Path(__file__).with_name("silero") / "silero_vad_16k_sequence.onnx"
"""The file of https://pypi.org/project/silero-vad 6.2.3 (MIT), whose package would bring torch with it."""

FRAME_SAMPLES = 512
"""Samples of one frame, 32 ms: what Silero's network takes at 16 kHz."""

CONTEXT_SAMPLES = 64
"""Number of samples before a frame that the network sees with it."""

BATCH_FRAMES = 512
"""Frames that go through the network at a time: 16 s."""

WINDOW_FRAMES = 936
"""The loudness of a frame is compared with the 30 s around it."""

NOISE_PERCENTILE, SPEECH_PERCENTILE = 10, 95
ABOVE_NOISE_DB, BELOW_SPEECH_DB = 8.0, 40.0
"""Speech is this much louder than the noise, and at most this much fainter than loud speech."""

SILENCE_POWER = 1e-10
"""Mean square of what counts as digital silence: -100 dB."""


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
        InputError: If Silero is asked for and not installed, or thresholds are given that loudness lacks.
    """

    def __init__(self, vad: VadName = "auto", options: VadOptions = DEFAULT_VAD):
        installed = find_spec("onnxruntime") is not None
        if vad == "silero" and not installed:
            raise InputError(
                "vad is 'silero', which onnxruntime runs, and that is not installed: run pip install "
                "'flax-distil[vad]', or take vad 'energy'"
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
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(NETWORK, sess_options=options, providers=["CPUExecutionProvider"])


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
    probability_F: Float[np.ndarray, " frames"],
    starts: float = DEFAULT_VAD.starts,
    ends: float = DEFAULT_VAD.ends,
) -> Bool[np.ndarray, " frames"]:
    """Start speech at one probability and end it below a smaller one."""
    decided = (probability_F >= starts) | (probability_F < ends)
    last = np.maximum.accumulate(np.where(decided, np.arange(len(probability_F)), -1))
    return np.where(last >= 0, probability_F[last] >= starts, False)


def _loud(levels_F: Float[np.ndarray, " frames"]) -> Bool[np.ndarray, " frames"]:
    """Compare the level of each frame with the levels of the 30 s around it."""
    threshold_F = np.empty_like(levels_F)
    step = WINDOW_FRAMES // 3
    for start in range(0, len(levels_F), step):
        around = levels_F[max(0, start - step) : start + 2 * step]
        noise, speech = np.percentile(around, [NOISE_PERCENTILE, SPEECH_PERCENTILE])
        threshold_F[start : start + step] = max(noise + ABOVE_NOISE_DB, speech - BELOW_SPEECH_DB)
    return levels_F > threshold_F
