"""What OpenAI's own code makes of windows when it is asked for words, step by step."""

import copy
import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
import whisper
import whisper.timing


@dataclasses.dataclass(frozen=True)
class AlignedWindow:
    """One window as OpenAI's code found the words of it."""

    mel_RM: np.ndarray
    frames: int
    tokens: tuple[int, ...]
    found: list[whisper.timing.WordTiming]
    last_speech_timestamp: float
    segments_before: list[dict[str, Any]]
    segments: list[dict[str, Any]]


def openai_windows(
    model: whisper.Whisper, samples_W: np.ndarray, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> list[AlignedWindow]:
    """Transcribe a recording with word timestamps and return every window of it."""
    windows: list[AlignedWindow] = []
    alignments: list[tuple[Any, ...]] = []
    find, add = whisper.timing.find_alignment, whisper.timing.add_word_timestamps

    def find_alignment(model, tokenizer, text_tokens, mel, num_frames, **more):
        found = find(model, tokenizer, text_tokens, mel, num_frames, **more)
        alignments.append((mel.numpy().T, num_frames, tuple(text_tokens), copy.deepcopy(found)))
        return found

    def add_word_timestamps(*, segments, last_speech_timestamp, **more):
        before = copy.deepcopy(segments)
        add(segments=segments, last_speech_timestamp=last_speech_timestamp, **more)
        if segments:
            windows.append(
                AlignedWindow(*alignments.pop(), last_speech_timestamp, before, copy.deepcopy(segments))
            )

    with monkeypatch.context() as patch:
        patch.setattr(whisper.timing, "find_alignment", find_alignment)
        patch.setattr(sys.modules["whisper.transcribe"], "add_word_timestamps", add_word_timestamps)
        whisper.transcribe(model, samples_W, word_timestamps=True, fp16=False, temperature=0, **options)
    return windows
