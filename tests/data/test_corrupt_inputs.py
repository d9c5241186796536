"""Damaged, extreme and forbidden recordings: the run goes on, each is counted by its kind with its reason."""

import contextlib
import json
import os
import tempfile
import tracemalloc
import wave
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av  # noqa: F401 (before privileges go: Python's own files may be the superuser's)
import grain  # noqa: F401
import numpy as np
import pytest
import soundfile
import soxr

from flax_distil.audio.reading import pyav_reader, readers
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.audio.reading.errors import AudioError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_table
from flax_distil.data.training.evaluation_pipeline import EvaluationPipeline
from flax_distil.data.training.pipeline import TrainingPipeline
from flax_distil.data.training.pipeline_config import PipelineConfig
from flax_distil.data.training.training_sources import TableSource, TrainingData

CONFIG = PipelineConfig(batch_size=4, num_threads=2)
THREE_HOURS = 3 * 3600 * 16_000
GOOD = ("good.flac", "wide.wav", "good again.wav")
KINDS = {
    "truncated.flac": "with unreadable audio",
    "nothing.wav": "with empty audio",
    "text.wav": "with unreadable audio",
    "no samples.wav": "with empty audio",
    "nan.wav": "with impossible sample values",
    "unscaled.wav": "with impossible sample values",
    "three hours.wav": "too long",
    "three hours, untold.flac": "too long",
    "folder.wav": "whose audio file cannot be opened",
    "forbidden.flac": "whose audio file cannot be opened",
    "missing.flac": "whose audio file cannot be opened",
}
REASONS = {
    "truncated.flac": "lost sync",
    "nothing.wav": "it is empty (0 bytes)",
    "text.wav": "it is text, not audio",
    "no samples.wav": "it holds no samples",
    "nan.wav": "NaN or infinite samples",
    "unscaled.wav": "reach 32000 where full scale is 1",
    "three hours.wav": "10800.00 s of audio: ",
    "three hours, untold.flac": "more than 31.00 s of audio: ",
    "folder.wav": "it is a folder",
    "forbidden.flac": "there is no permission to read it",
    "missing.flac": "it does not exist",
}


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Files may be read by everyone but their owner; the superuser becomes nobody for a while."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


def write_wide(path: Path, seconds: int) -> None:
    """Write recorded speech in eight channels at 192 kHz, 24 bit."""
    speech = decode_audio(Path(__file__).parents[2] / "examples/asterisk_prompts/train/agent-incorrect.ogg")
    at_192_khz = soxr.resample(np.resize(speech, seconds * 16_000), 16_000, 192_000)
    with soundfile.SoundFile(path, "w", 192_000, 8, "PCM_24") as file:
        for second in np.split(at_192_khz, seconds):
            file.write(np.repeat(second[:, None], 8, axis=1))


@pytest.fixture(scope="module")
def folder(flac_rows) -> Iterator[Path]:
    """Every kind of bad file between good ones; readable by everyone, unlike pytest's folders."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        good = Path(flac_rows[0]["audio"]).read_bytes()
        (folder / "good.flac").write_bytes(good)
        soundfile.write(folder / "good again.wav", decode_audio(flac_rows[1]["audio"]), 16_000)
        write_wide(folder / "wide.wav", 4)
        (folder / "truncated.flac").write_bytes(good[: len(good) // 2])
        (folder / "nothing.wav").touch()
        (folder / "text.wav").write_text("It was a dark and stormy night.\n" * 100)
        soundfile.write(folder / "no samples.wav", np.zeros(0, np.float32), 16_000)
        soundfile.write(folder / "nan.wav", np.array([0, np.nan] * 800, np.float32), 16_000, subtype="FLOAT")
        loud = np.array([0, 32000] * 800, np.float32)
        soundfile.write(folder / "unscaled.wav", loud, 16_000, subtype="FLOAT")
        write_three_hours(folder / "three hours.wav")
        write_untold(folder / "three hours, untold.flac")
        (folder / "folder.wav").mkdir()
        (folder / "forbidden.flac").write_bytes(good)
        (folder / "forbidden.flac").chmod(0o000)
        yield folder


def write_three_hours(path: Path) -> None:
    """Write three hours of silence that take no room on disk."""
    with wave.open(str(path), "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
    size = 2 * THREE_HOURS
    header = bytearray(path.read_bytes())
    header[4:8], header[40:44] = (36 + size).to_bytes(4, "little"), size.to_bytes(4, "little")
    path.write_bytes(header)
    os.truncate(path, len(header) + size)


def write_untold(path: Path) -> None:
    """Write minutes of FLAC as a live encoder does: the header does not tell how many samples follow."""
    soundfile.write(path, np.random.default_rng(0).normal(size=180 * 16_000) * 0.01, 16_000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # 36 bits of the STREAMINFO block
    content[22:26] = bytes(4)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def corrupt(folder) -> SpeechDataset:
    bad = list(KINDS)
    names = [GOOD[0], *bad[:5], GOOD[1], *bad[5:], GOOD[2]]
    rows = [{"id": name, "audio": str(folder / name), "text": "some words"} for name in names]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_table(DatasetSpec(name=str(folder / "rows.jsonl"), text_column="text"))


def assert_counted(skipped) -> None:
    found = {sample.sample_id: (sample.kind, sample.reason) for sample in skipped.samples()}
    assert {name: kind for name, (kind, _) in found.items()} == KINDS
    assert not {name: found[name] for name, reason in REASONS.items() if reason not in found[name][1]}
    assert skipped.counts() == dict(Counter(KINDS.values()))


def test_an_evaluation_goes_on_and_counts_each(corrupt):
    pipeline = EvaluationPipeline(corrupt, CONFIG, too_long="skip")
    with without_privileges():
        batches = list(pipeline)
    assert [name for batch in batches for name in batch.ids] == [*GOOD, ""]
    assert batches[0].duration_B[1] == 4.0
    assert_counted(pipeline.skipped)


def test_a_training_run_goes_on_and_counts_each(corrupt, labels):
    pipeline = TrainingPipeline(
        TrainingData(sources=[TableSource(data=corrupt, labels=labels)]), CONFIG, seed=0
    )
    with contextlib.closing(pipeline), without_privileges():
        batches = list(islice(pipeline, 6))
    rows = Counter(name for batch in batches for name in batch.ids)  # of two epochs, with empty ones
    assert rows == dict.fromkeys(GOOD, 2) | {"": 18}
    assert_counted(pipeline.skipped)


def test_a_header_that_tells_three_hours_is_enough(folder, monkeypatch):
    def never(sound):
        yield pytest.fail("something was decoded")

    monkeypatch.setattr(readers, "_soundfile_blocks", never)
    with pytest.raises(AudioError, match=r"it lasts 10800\.00 s, and at most 30 s are taken; cut it"):
        decode_audio(folder / "three hours.wav", max_seconds=30.0)


def test_where_the_header_does_not_tell_decoding_stops_soon(folder, monkeypatch):
    read, blocks = [], pyav_reader._blocks

    def counted(first, others):
        for block in blocks(first, others):
            read.append(len(block))
            yield block

    monkeypatch.setattr(pyav_reader, "_blocks", counted)
    with pytest.raises(AudioError, match="it lasts more than"):
        decode_audio(folder / "three hours, untold.flac", max_seconds=30.0)
    assert 31 * 16_000 < sum(read) <= 31 * 16_000 + readers.BLOCK_SAMPLES


def test_a_limit_lets_through_what_is_within_it(folder):
    whole = decode_audio(folder / "good.flac")
    seconds = len(whole) / 16_000
    np.testing.assert_array_equal(decode_audio(folder / "good.flac", max_seconds=seconds), whole)
    with pytest.raises(AudioError, match="it lasts"):
        decode_audio(folder / "good.flac", max_seconds=seconds - 1.1)


def test_many_channels_at_a_high_rate_never_lie_in_memory_together(folder):
    decode_audio(folder / "wide.wav")
    tracemalloc.start()
    samples = decode_audio(folder / "wide.wav")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(samples) == 4 * 16_000
    everything = 4 * 192_000 * 8 * 4
    assert peak < 0.45 * everything  # mono at 192 kHz twice, while blocks are joined: a quarter
