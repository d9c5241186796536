"""Corpora to read: real prompts joined to utterances of 10 to 30 s as FLAC, or short noise without end."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from benchmarks.checkpoints import REPOSITORY
from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio

FOLDER = REPOSITORY / ".cache" / "benchmarks"
ROWS_PER_GROUP = 64


def flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def real_utterances(count: int) -> list[Path]:
    """Return Parquet files of utterances, each another mixture of prompts; made once."""
    files = [FOLDER / f"utterances-{count}-{shard}.parquet" for shard in range(4)]
    if not all(file.is_file() for file in files):
        for shard, file in enumerate(files):
            _write(file, _mixtures(count // len(files), seed=shard))
    return files


def short_noise(count: int, shards: int, folder: Path) -> list[Path]:
    """Return Parquet files of recordings of half a second to a second."""
    files = [folder / f"noise-{shard}.parquet" for shard in range(shards)]
    for shard, file in enumerate(files):
        _write(file, _noise(count // shards, seed=shard))
    return files


def silence(count: int, shards: int, folder: Path) -> list[Path]:
    """Return Parquet files of a tenth of a second of silence, ever again."""
    files = [folder / f"silence-{shard}.parquet" for shard in range(shards)]
    for file in files:
        nothing = np.zeros(SAMPLING_RATE // 10, np.int16)
        _write(file, ((nothing, f"Recording {number}.") for number in range(-(-count // shards))))
    return files


def _mixtures(count: int, seed: int) -> Iterator[tuple[np.ndarray, str]]:
    """Yield utterances of 10 to 30 s (as long as packing makes them) and their texts."""
    folder = REPOSITORY / "examples" / "asterisk_prompts" / "train"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    prompts = [(decode_audio(folder / row["file_name"]), row["text"]) for row in rows]
    random = np.random.default_rng(seed)
    for _ in range(count):
        wanted = random.uniform(10, 29) * SAMPLING_RATE
        parts, texts, length = [], [], 0
        while length < wanted:
            samples, text = prompts[random.integers(len(prompts))]
            if length + len(samples) > 30 * SAMPLING_RATE:
                break
            parts.append(samples)
            texts.append(text)
            length += len(samples)
        joined = np.concatenate(parts) * 32767
        yield np.round(joined).astype(np.int16), " ".join(texts)


def _noise(count: int, seed: int) -> Iterator[tuple[np.ndarray, str]]:
    random = np.random.default_rng(seed)
    for number in range(count):
        length = int(random.uniform(0.5, 1.0) * SAMPLING_RATE)
        yield random.integers(-30, 30, length).astype(np.int16), f"Recording number {number}."


def _write(file: Path, utterances: Iterator[tuple[np.ndarray, str]]) -> None:
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("id", pa.string()), ("audio", audio), ("text", pa.string()), ("duration", pa.float64())]
    )
    features: dict[str, Any] = {
        "id": {"_type": "Value", "dtype": "string"}, "audio": {"_type": "Audio"},
        "text": {"_type": "Value", "dtype": "string"}, "duration": {"_type": "Value", "dtype": "float64"},
    }  # fmt: skip
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    rows = [
        {
            "id": f"{file.stem}-{number}",
            "audio": {"bytes": flac(samples), "path": None},
            "text": text,
            "duration": len(samples) / SAMPLING_RATE,
        }
        for number, (samples, text) in enumerate(utterances)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(".writing")
    pq.write_table(pa.Table.from_pylist(rows, schema), scratch, row_group_size=ROWS_PER_GROUP)
    scratch.rename(file)
