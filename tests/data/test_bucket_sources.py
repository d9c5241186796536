"""Buckets: real s3fs and gcsfs against servers on the loopback interface that speak their protocols."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
from gcp_storage_emulator.server import create_server
from moto.server import ThreadedMotoServer

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import SampleReader
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_tables
from flax_distil.storage import transports
from flax_distil.storage.retries import RetryPolicy, SourceError
from tests.data.stream_checks import all_rows

QUICK = RetryPolicy(total_seconds=2.0, first_pause_seconds=0.05, largest_pause_seconds=0.1, read_seconds=5.0)


@pytest.fixture(autouse=True)
def fresh_file_systems() -> Iterator[None]:
    """Each server is another one for the file systems kept by the process."""
    transports._filesystem.cache_clear()
    yield
    transports._filesystem.cache_clear()


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


def test_s3(corpus, corpus_rows, tmp_path, monkeypatch):
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"endpoint_url": f"http://{host}:{port}", "key": "key", "secret": "secret"}
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        files = transports.filesystem("s3")
        files.mkdir("bucket")
        files.put(str(corpus) + "/", "bucket/corpus/", recursive=True)
        check_bucket("s3://bucket/corpus", corpus_rows, tmp_path / "cache")
    finally:
        server.stop()


def test_gs(corpus, corpus_rows, tmp_path, monkeypatch):
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        port = server._api._httpd.server_port
        options = {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon"}
        monkeypatch.setitem(fsspec.config.conf, "gs", options)
        files = transports.filesystem("gs")
        files.put(str(corpus) + "/", "bucket/corpus/", recursive=True)
        check_bucket("gs://bucket/corpus", corpus_rows, tmp_path / "cache")
    finally:
        server.stop()
