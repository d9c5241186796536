"""No time lies beyond the end of its recording, in any mode, of segments or words, in any format."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.nested import build
from flax_distil.pipeline.config import TranscribeConfig
from flax_distil.pipeline.job import run
from flax_distil.pipeline.pipeline import Pipeline as FlaxWhisperPipeline
from tests.long_recording import long_recording

LENGTHS = (0.3, 0.5, 0.9, 1.7, 11.37, 31.53)
WAYS = ({}, {"mode": "short"}, {"mode": "sequential"}, {"chunk_length_s": 15.0}, {"chunk_length_s": 30.0})
ROUNDING = 1e-6 + 0.0005
"""Subtitles are in milliseconds."""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict[Path, float]:
    """Speech cut off at each length, and one second of digital silence."""
    folder = tmp_path_factory.mktemp("recordings")
    speech, _ = long_recording(40)
    sounds = {f"speech{number}": speech[: int(s * SAMPLING_RATE)] for number, s in enumerate(LENGTHS)}
    sounds["silence"] = np.zeros(SAMPLING_RATE, np.float32)
    lengths = {}
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, SAMPLING_RATE)
        lengths[folder / f"{name}.wav"] = len(samples) / SAMPLING_RATE
    return lengths


def times_of(path: Path) -> Iterator[float]:
    """Yield every time that a file of any format holds, in seconds."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        for segment in json.loads(text)["segments"]:
            yield from (segment["start"], segment["end"])
            for word in segment.get("words") or ():
                yield from (word["start"], word["end"])
    elif path.suffix == ".tsv":
        for line in text.splitlines()[1:]:
            yield from (int(value) / 1000 for value in line.split("\t")[:2])
    else:
        for hours, minutes, seconds in re.findall(r"(?:(\d+):)?(\d\d):(\d\d[.,]\d{3})", text):
            yield int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))


@pytest.mark.slow
@pytest.mark.parametrize("words", [False, True], ids=["segments", "words"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(*way.values()) or "auto")
def test_no_file_holds_a_time_beyond_the_recording(tiny_en_dir, recordings, way, words, tmp_path):
    files = [path for path in recordings if recordings[path] <= 30 or way.get("mode") != "short"]
    run(
        build(
            TranscribeConfig,
            model_name_or_path=str(tiny_en_dir), files=list(map(str, files)), output_dir=str(tmp_path),
            output_format="all", word_timestamps=words, per_device_eval_batch_size=4, **way,
        )
    )  # fmt: skip
    found = 0
    for path in files:
        for transcript in tmp_path.glob(f"{path.stem}.*"):
            times = list(times_of(transcript))
            found += len(times)
            assert [time for time in times if time > recordings[path] + ROUNDING] == [], transcript
            assert [time for time in times if time < 0] == [], transcript
    assert found > 50


@pytest.mark.slow
@pytest.mark.parametrize("timestamps", [True, "word"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(*way.values()) or "auto")
def test_no_chunk_of_a_pipeline_lies_beyond_the_recording(tiny_en_dir, recordings, way, timestamps):
    files = [path for path in recordings if recordings[path] <= 30 or way.get("mode") != "short"]
    pipeline = FlaxWhisperPipeline(tiny_en_dir, batch_size=4, **way)
    results = pipeline(list(map(str, files)), return_timestamps=timestamps)
    for path, result in zip(files, results, strict=True):
        times = [time for chunk in result["chunks"] for time in chunk["timestamp"] if time is not None]
        assert [time for time in times if not 0 <= time <= recordings[path] + ROUNDING] == [], path
    assert sum(len(result["chunks"]) for result in results) > 5
