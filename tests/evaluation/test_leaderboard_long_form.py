"""The long-form sets of the Open ASR Leaderboard, with a real model on joined prompts in their layout."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.core.nested import build
from flax_distil.evaluation.config import EvalConfig
from flax_distil.evaluation.job import run
from flax_distil.evaluation.leaderboard.sets import GROUPS, SETS
from tests.long_recording import long_recording

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_partitioner")]

SECONDS = {"earnings21_long_form": (70.0, 40.0), "earnings22_long_form": (50.0,), "coraal_ATL": (45.0,)}


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Path:
    """A folder of copies, as ``hf download`` makes them; in one row of each set nothing is said."""
    root = tmp_path_factory.mktemp("copies")
    for name, lengths in SECONDS.items():
        rows: list[dict[str, Any]] = []
        for seed, seconds in enumerate((*lengths, 1.0)):
            samples_W, text = long_recording(seconds, seed=seed)
            file = io.BytesIO()
            soundfile.write(file, samples_W, SAMPLING_RATE, format="FLAC")
            audio = {"bytes": file.getvalue(), "path": f"{seed}.flac"}
            rows.append({"audio": audio, "text": "Um, uh." if seconds == 1.0 else text})
        data_set = SETS[name]
        folder = root / data_set.dataset.rpartition("/")[2] / data_set.config
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet")
    return root


def evaluate(model: Path, copies: Path, folder: Path, **changes) -> dict[str, Any]:
    settings = {
        "model_name_or_path": str(model), "protocol": "open_asr_leaderboard",
        "dataset_name": "+".join(SECONDS), "leaderboard_data_dir": str(copies),
        "per_device_eval_batch_size": 2, "output_dir": str(folder), **changes,
    }  # fmt: skip
    return run(build(EvalConfig, **settings))


def manifests(folder: Path, model: str) -> dict[str, list[dict[str, Any]]]:
    files = folder / "open_asr_leaderboard" / model
    return {
        name: [
            json.loads(line) for line in (files / SETS[name].manifest_name(model)).read_text().splitlines()
        ]
        for name in SECONDS
    }


def test_long_form_sets_are_transcribed_to_their_ends_and_scored_and_streamed_alike(
    tiny_en_dir, copies, tmp_path
):
    results = evaluate(tiny_en_dir, copies, tmp_path / "table")
    model = f"local-{tiny_en_dir.name}"
    found, figures = manifests(tmp_path / "table", model), results["open_asr_leaderboard"][tiny_en_dir.name]
    for name, lengths in SECONDS.items():
        assert [row["duration"] for row in found[name]] == [pytest.approx(s, abs=8) for s in lengths]
        for seed, row in enumerate(found[name]):
            assert row["text"] == long_recording(lengths[seed], seed=seed)[1]
            assert (
                row["pred_text"].split()[-1].strip(".").lower() == row["text"].split()[-1].strip(".").lower()
            )
            assert row["time"] > 0
        assert figures["sets"][name]["wer"] < 12
        assert figures["sets"][name]["samples"] == len(lengths)
    group = figures["groups"]["long_form"]
    assert group["incomplete"] == [name for name in GROUPS["long_form"] if name not in SECONDS]
    rates = [round(figures["sets"][name]["wer"], 2) for name in SECONDS]
    assert group["mean_wer"] == pytest.approx(sum(rates) / 3)
    seconds = sum(row["time"] for rows in found.values() for row in rows)
    audio = sum(row["duration"] for rows in found.values() for row in rows)
    assert group["rtfx"] == pytest.approx(audio / seconds)

    evaluate(tiny_en_dir, copies, tmp_path / "stream", streaming=True)
    streamed = manifests(tmp_path / "stream", model)
    for rows in (*found.values(), *streamed.values()):
        for row in rows:
            row.pop("time")
    assert streamed == found
