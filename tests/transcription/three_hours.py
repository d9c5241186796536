"""Transcribe three hours in a process of its own; prints JSON for ``test_sequential.py``.

A minute of speech every half hour, and between them nothing but the rounding noise of 16 bits.

python three_hours.py FOLDER_OF_TINY_EN
"""

import dataclasses
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.transcription.options import TranscriptionOptions, long_form_defaults
from flax_distil.transcription.sequential.transcriber import SequentialTranscriber
from tests.long_recording import long_recording
from tests.transcription.models import Model

HOURS = 3
SPOKEN_SECONDS = 60


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def recording() -> np.ndarray:
    random = np.random.default_rng(0)
    samples = random.random(HOURS * 3600 * SAMPLING_RATE, np.float32)
    samples -= 0.5
    samples /= 32768
    speech = long_recording(SPOKEN_SECONDS)[0]
    for start in range(0, len(samples), 1800 * SAMPLING_RATE):
        samples[start : start + len(speech)] += speech
    return samples


if __name__ == "__main__":
    usual = long_form_defaults(TranscriptionOptions())
    options = {field.name: getattr(usual, field.name) for field in dataclasses.fields(usual)}
    generator = Model.open(Path(sys.argv[1])).transcriber(**options).generator
    transcriber = SequentialTranscriber(generator, batch_size=1)
    transcriber.warm_up()
    [(_, minute)] = transcriber.transcribe_recordings([(0, long_recording(SPOKEN_SECONDS)[0])])
    before = peak_bytes()
    samples = [recording()]
    decoded = len(samples[0]) * 4
    began = time.perf_counter()
    [(_, transcript)] = transcriber.transcribe_recordings((0, samples.pop()) for _ in range(1))
    report = {
        "seconds": time.perf_counter() - began,
        "samples_bytes": decoded,
        "peak_bytes": peak_bytes(),
        "peak_bytes_before": before,
        "minute": minute.text,
        "text": transcript.text,
        "starts": [segment.start for segment in transcript.segments],
        "minute_seconds": len(long_recording(SPOKEN_SECONDS)[0]) / SAMPLING_RATE,
    }
    print(json.dumps(report))
