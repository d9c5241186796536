"""Exports in whisper.cpp, through pywhispercpp."""

import ctypes
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flax_distil.core.arrays import Float
from flax_distil.core.errors import InputError
from flax_distil.exporting.formats.ggml import file_name
from flax_distil.exporting.verification.runtime import MAX_NEW_TOKENS, Clip

_FIRST_WITH_FLOAT32 = (1, 9, 2)
"""Version of whisper.cpp from which on float32 models run: before, ggml asserts that kernels are float16."""

_OPTIONS: dict[str, Any] = {
    "no_timestamps": True,
    "single_segment": True,
    "max_tokens": MAX_NEW_TOKENS,
    "suppress_blank": True,
    "suppress_nst": True,  # tokens that are no speech, which checkpoints suppress
    "temperature": 0.0,
    "temperature_inc": 0.0,  # no second attempt
    "no_speech_thold": 1.0,
    "greedy": {"best_of": 1},
    "print_progress": False,
    "print_realtime": False,
}


def open_runtime(folder: Path) -> "WhisperCppRuntime":
    """Load an export on the CPU; whisper.cpp keeps its keys and values in float16 whatever the file has.

    Raises:
        InputError: If the weights are float32 and this whisper.cpp would end the process.
    """
    from pywhispercpp.model import Model

    path = next(folder.glob("ggml-model*.bin"))
    if path.name == file_name("f32") and (version := _version()) < _FIRST_WITH_FLOAT32:
        raise InputError(
            f"whisper.cpp {'.'.join(map(str, version))} of pywhispercpp aborts on float32 models, which only "
            "1.9.2 and later run: verify --quantization ggml:f16"
        )
    model = Model(
        str(path),
        redirect_whispercpp_logs_to=None,
        context_params={"use_gpu": False, "flash_attn": False},
        n_threads=_processors(),
        **_OPTIONS,
    )
    return WhisperCppRuntime(model)


def _version() -> tuple[int, ...]:
    """Return the version of the whisper.cpp that pywhispercpp was built with; 0 if it does not say."""
    import _pywhispercpp

    library = ctypes.CDLL(_pywhispercpp.__file__)
    if not hasattr(library, "whisper_version"):
        return (0,)
    library.whisper_version.restype = ctypes.c_char_p
    return tuple(int(part) for part in library.whisper_version().decode().split(".") if part.isdecimal())


def _processors() -> int:
    """Return the number of processors that this process may use; more threads would wait for each other."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class WhisperCppRuntime:
    """A ``Model`` of pywhispercpp."""

    model: Any

    def transcribe(self, clip: Clip) -> str:
        """See ``Runtime``."""
        segments = self.model.transcribe(clip.samples_W, language=clip.language or "en")
        return "".join(segment.text for segment in segments)

    def logits(self, clip: Clip, tokens: Sequence[int]) -> Float[np.ndarray, "T V"] | None:
        """See ``Runtime``; pywhispercpp gives none."""
        return None
