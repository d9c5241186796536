"""Parquet shards: whole or not there, the same bytes for the same rows, and understood by datasets."""

from pathlib import Path

import datasets
import pyarrow.parquet
import pytest

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.data.shards.shard import BLOCK_ROWS
from flax_distil.data.shards.shard_writer import shard_features, shard_table, write_shard
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_table


@pytest.fixture(scope="module")
def table(speech, corpus_rows):
    rows = [4, 0, 0]
    audio = [{"bytes": Path(corpus_rows[row]["audio"]).read_bytes(), "path": f"{row}.ogg"} for row in rows]
    features = shard_features(speech, {"label": datasets.Value("string"), "id": datasets.Value("string")})
    columns = {"label": ["four", None, "zero"], "id": ["x", "y", "z"]}
    return shard_table(speech, rows, audio=audio, columns=columns, features=features)


def test_a_shard_holds_the_columns_of_its_source_and_those_that_were_added(table, speech, tmp_path):
    path = tmp_path / "train-00000.parquet"
    written = write_shard(table, path, scratch=tmp_path / "scratch")
    found = load_table(DatasetSpec(name=str(path), text_column="text"))
    assert written.bytes == path.stat().st_size
    assert found.references() == [speech.references()[row] for row in (4, 0, 0)]
    assert found.ids() == ["x", "y", "z"]
    assert found.column("label") == ["four", None, "zero"]
    assert len(decode_audio(found.row(0).audio["bytes"])) == len(decode_audio(speech.row(4).audio["path"]))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_datasets_takes_the_recordings_for_audio(table, tmp_path):
    path = tmp_path / "a.parquet"
    write_shard(table, path, scratch=tmp_path / "scratch")
    found = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path))
    assert found.features["audio"] == datasets.Audio()
    streamed = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    assert streamed.features["audio"] == datasets.Audio()


def test_equal_rows_give_equal_bytes_in_row_groups_of_one_block(table, tmp_path):
    longer = pyarrow.concat_tables([table] * 30)
    digests = [
        write_shard(longer, tmp_path / name, scratch=tmp_path / "scratch").sha256 for name in ("a", "b")
    ]
    assert digests[0] == digests[1]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    metadata = pyarrow.parquet.read_metadata(tmp_path / "a")
    assert [metadata.row_group(group).num_rows for group in range(2)] == [BLOCK_ROWS, 90 - BLOCK_ROWS]


def test_a_full_disk_leaves_the_shard_as_it_was(table, tmp_path):
    path, scratch = tmp_path / "a.parquet", tmp_path / "scratch"
    path.write_bytes(b"before")
    scratch.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        write_shard(table, path, scratch=scratch)
    assert path.read_bytes() == b"before"
    assert not scratch.is_symlink()
