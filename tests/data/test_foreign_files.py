"""Data sets of other people name no file of this machine, and a saved folder names none outside."""

import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import DurationLimits, SampleError, decode_row
from flax_distil.data.foreign_files import foreign_files
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_table
from flax_distil.storage.retries import RetryPolicy
from tests.data.flaky_http_server import serving
from tests.data.stream_checks import all_rows

BRIEF = RetryPolicy(total_seconds=0.3, first_pause_seconds=0.05, read_seconds=0.5)


@pytest.fixture(scope="module")
def private(corpus_rows) -> str:
    """A recording of this machine that decodes."""
    return corpus_rows[0]["audio"]


def write_rows(folder: Path, private: str) -> None:
    good = {"bytes": Path(private).read_bytes(), "path": "a.ogg"}
    names = [private, f"file://{private}", f"local://{private}", f"../../../../../../../..{private}"]
    audio = [good, *({"bytes": None, "path": name} for name in names)]
    table = pyarrow.table({"audio": audio, "text": ["a"] * len(audio)})
    pyarrow.parquet.write_table(table, folder / "rows.parquet")


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_from_a_server_read_no_file_of_this_machine(private, tmp_path, streaming):
    write_rows(tmp_path, private)
    with serving(tmp_path) as address:
        spec = DatasetSpec(
            name=f"{address}/rows.parquet", policy=BRIEF, cache_dir=tmp_path / "cache", streaming=streaming
        )
        rows = all_rows(load_streams(spec)[0]) if streaming else load_table(spec).rows()
        assert len(decode_row(rows[0], DurationLimits()).samples_W)
        assert len(rows) == 5
        for row in rows[1:]:
            with pytest.raises(SampleError, match="a file of this machine"):
                decode_row(row, DurationLimits())


def test_rows_of_this_machine_may_name_any_file_of_it(private, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"audio": private, "text": "a"}))
    (row,) = load_table(DatasetSpec(name=str(path))).rows()
    assert len(decode_row(row, DurationLimits()).samples_W)


def test_only_the_copy_of_a_hub_data_set_may_be_named():
    root = DatasetSpec(name="someone/corpus", cache_dir="/cache").local_files
    assert root == "/cache/datasets--someone--corpus"
    paths = [
        f"{root}/snapshots/1/a.wav",
        f"{root}/../other/a.wav",
        f"{root}-2/a.wav",
        "a.wav",
        "gs://b/a.wav",
        None,
    ]
    table = datasets.Dataset.from_dict({"audio": [{"bytes": None, "path": path} for path in paths]})
    assert foreign_files(table, "audio", root).keys() == {1, 2, 3}
    assert foreign_files(table.select([4, 3, 0]), "audio", root).keys() == {1}


@pytest.mark.parametrize("name", ["../private.arrow", "/etc/passwd", "..", "", "a/b.arrow", "a\0b", 7])
@pytest.mark.parametrize("load", [load_table, load_streams])
def test_a_saved_folder_names_files_in_itself_only(tmp_path, name, load):
    datasets.Dataset.from_dict({"audio": ["a.wav"]}).save_to_disk(tmp_path / "rows")
    state = tmp_path / "rows" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_data_files": [{"filename": name}]}))
    with pytest.raises(InputError, match="not in this folder"):
        load(DatasetSpec(name=str(tmp_path / "rows")))


@pytest.mark.parametrize("load", [load_table, load_streams])
def test_a_saved_dictionary_names_splits_in_itself_only(tmp_path, load):
    rows = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"audio": ["a.wav"]})})
    rows.save_to_disk(tmp_path / "a")
    rows.save_to_disk(tmp_path / "b")
    (tmp_path / "b" / "dataset_dict.json").write_text('{"splits": ["../a/train"]}')
    with pytest.raises(InputError, match="not the name of a folder"):
        load(DatasetSpec(name=str(tmp_path / "b")))
