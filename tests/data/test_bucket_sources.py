"""Buckets: real s3fs and gcsfs against servers on the loopback interface that speak their protocols."""

import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import SampleReader
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_tables
from flax_distil.storage import transports
from flax_distil.storage.retries import SourceError
from tests.data.stream_checks import all_rows
from tests.storage.buckets import QUICK, running_gs, running_s3


@pytest.fixture
def corpus(corpus_rows, tmp_path) -> Path:
    """Two Parquet files, and a manifest of loose recordings."""
    folder = tmp_path / "corpus"
    for name in ("clips", "shards"):
        (folder / name).mkdir(parents=True)
    lines = []
    for number, row in enumerate(corpus_rows[:4]):
        name = f"{number}{Path(row['audio']).suffix}"
        shutil.copy(row["audio"], folder / "clips" / name)
        lines.append(json.dumps({"audio": f"clips/{name}", "text": row["text"]}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))
    audio = [{"bytes": Path(row["audio"]).read_bytes(), "path": row["audio"]} for row in corpus_rows[:4]]
    table = pyarrow.table({"audio": audio, "text": [row["text"] for row in corpus_rows[:4]]})
    for part in range(2):
        pyarrow.parquet.write_table(table.slice(2 * part, 2), folder / f"shards/train-{part:05d}.parquet")
    return folder


def check_bucket(address: str, corpus_rows: list[dict], cache: Path) -> None:
    texts = [row["text"] for row in corpus_rows[:4]]
    for spec in ("shards/train-*.parquet", "shards/train-{00000..00001}.parquet", "shards", "rows.jsonl"):
        (stream,) = load_streams(DatasetSpec(name=f"{address}/{spec}", text_column="text", policy=QUICK))
        assert [row.reference for row in all_rows(stream)] == texts
        (data,) = load_tables(
            DatasetSpec(name=f"{address}/{spec}", text_column="text", policy=QUICK, cache_dir=cache)
        )
        assert data.references() == texts
        found = SampleReader(data, policy=QUICK).read(3).samples_W
        assert (found == decode_audio(corpus_rows[3]["audio"])).all()
    with pytest.raises(SourceError, match=r"lost\.parquet: it does not exist"):
        load_streams(DatasetSpec(name=f"{address}/lost.parquet", policy=QUICK))
    with pytest.raises(InputError, match="no file matches"):
        load_streams(DatasetSpec(name=f"{address}/lost-*.parquet", policy=QUICK))


@pytest.mark.parametrize(("scheme", "running"), [("s3", running_s3), ("gs", running_gs)])
def test_sources_in_a_bucket(scheme, running, corpus, corpus_rows, tmp_path, monkeypatch):
    with running(monkeypatch):
        transports.filesystem(scheme).put(f"{corpus}/", "bucket/corpus/", recursive=True)
        check_bucket(f"{scheme}://bucket/corpus", corpus_rows, tmp_path / "cache")
