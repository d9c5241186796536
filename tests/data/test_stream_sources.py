"""Every kind of source as a stream: the rows that loading it gives, from this disk and from a server."""

import gzip
import json
import shutil
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import DurationLimits, SampleError, SampleReader, decode_row
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_table, load_tables
from flax_distil.storage.retries import RetryPolicy, SourceError
from tests.data.flaky_http_server import Behavior, serving
from tests.data.stream_checks import all_rows

BRIEF = RetryPolicy(total_seconds=0.3, first_pause_seconds=0.05, largest_pause_seconds=0.1, read_seconds=0.5)
ROWS = 5


@pytest.fixture(scope="module")
def rows(corpus_rows) -> list[dict]:
    return corpus_rows[:ROWS]


@pytest.fixture(scope="module")
def texts(rows) -> list[str]:
    return [row["text"] for row in rows]


def embedded(rows: list[dict]) -> pyarrow.Table:
    """The rows as the Hub stores them: bytes in a struct, marked as an Audio feature."""
    audio = [{"bytes": Path(row["audio"]).read_bytes(), "path": Path(row["audio"]).name} for row in rows]
    table = pyarrow.table({"audio": audio, "text": [row["text"] for row in rows]})
    features = datasets.Features({"audio": datasets.Audio(), "text": datasets.Value("string")})
    return table.cast(features.arrow_schema)


def make_parquet(rows: list[dict], folder: Path) -> str:
    pyarrow.parquet.write_table(embedded(rows[:3]), folder / "train-0.parquet", row_group_size=2)
    pyarrow.parquet.write_table(embedded(rows[3:]), folder / "train-1.parquet")
    return "train-*.parquet"


def make_arrow(rows: list[dict], folder: Path) -> str:
    for number, part in enumerate((rows[:3], rows[3:])):
        table = embedded(part)
        with pyarrow.ipc.new_stream(folder / f"{number:03d}.arrow", table.schema) as writer:
            writer.write_table(table)
    return "{000..001}.arrow"


def make_tar(rows: list[dict], folder: Path) -> str:
    for number, part in enumerate((rows[:3], rows[3:])):
        with tarfile.open(folder / f"{number}.tar", "w") as archive:
            for row in part:
                path = Path(row["audio"])
                (folder / "text.txt").write_text(row["text"])
                archive.add(path, path.name)
                archive.add(folder / "text.txt", f"{path.stem}.txt")
    return "*.tar"


def make_manifest(rows: list[dict], folder: Path) -> str:
    (folder / "some clips").mkdir()
    lines = []
    for row in rows:
        name = Path(shutil.copy(row["audio"], folder / "some clips")).name
        lines.append(json.dumps({"audio_filepath": f"./some clips/{name}", "text": row["text"]}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))
    return "rows.jsonl"


def make_parquet_folder(rows: list[dict], folder: Path) -> str:
    (folder / "data").mkdir()
    make_parquet(rows, folder / "data")
    return "data/"


def make_saved_folder(rows: list[dict], folder: Path) -> str:
    datasets.Dataset(embedded(rows)).save_to_disk(str(folder / "saved"), num_shards=2)
    return "saved/"


def make_audio_folder(rows: list[dict], folder: Path) -> str:
    (folder / "clips").mkdir()
    for row in rows:
        shutil.copy(row["audio"], folder / "clips")
    lines = [{"file_name": Path(row["audio"]).name, "text": row["text"]} for row in rows]
    (folder / "clips" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return "clips/"


KINDS = [
    make_parquet,
    make_arrow,
    make_tar,
    make_manifest,
    make_parquet_folder,
    make_saved_folder,
    make_audio_folder,
]
EVERY_KIND = pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__[5:])


@EVERY_KIND
def test_a_stream_gives_the_rows_of_the_loaded_data_set_here_and_from_a_server(make, rows, texts, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    name = make(rows, folder)
    with serving(folder) as address:
        for spec in (f"{folder}/{name}", f"{address}/{name}"):
            (stream,) = load_streams(DatasetSpec(name=spec, text_column="text", policy=BRIEF))
            found = all_rows(stream)
            (data,) = load_tables(
                DatasetSpec(name=spec, text_column="text", policy=BRIEF, cache_dir=tmp_path / "cache")
            )
            assert [row.reference for row in found] == data.references() == texts
            assert len({row.sample_id for row in found}) == len(set(data.ids())) == ROWS
            reader = SampleReader(data, policy=BRIEF)
            for index, row in enumerate(rows):
                samples_W = decode_audio(row["audio"])
                streamed = decode_row(found[index], DurationLimits(), policy=BRIEF)
                np.testing.assert_array_equal(streamed.samples_W, samples_W)
                np.testing.assert_array_equal(reader.read(index).samples_W, samples_W)
            assert len({shard.name for shard in stream.shards}) == len(stream.shards)
            (first,) = load_streams(DatasetSpec(name=spec, text_column="text", max_samples=4, policy=BRIEF))
            assert [row.reference for row in all_rows(first)] == texts[:4]


def test_recordings_without_metadata_on_a_server_are_a_data_set_without_texts(rows, tmp_path):
    for row in rows:
        shutil.copy(row["audio"], tmp_path)
    with serving(tmp_path) as address:
        (stream,) = load_streams(DatasetSpec(name=f"{address}/", policy=BRIEF))
        found = all_rows(stream)
        assert [row.reference for row in found] == [None] * ROWS
        assert decode_row(found[0], DurationLimits(), policy=BRIEF).duration_seconds > 0


def test_a_cursor_of_the_first_rows_goes_on_where_it_was(rows, texts, tmp_path):
    (stream,) = load_streams(
        DatasetSpec(name=f"{tmp_path}/{make_parquet(rows, tmp_path)}", text_column="text", max_samples=4)
    )
    blocks = list(stream.blocks(0))
    seen = 0
    for data, cursor in blocks:
        seen += len(data)
        if cursor is not None:
            rest = [text for part, _ in stream.blocks(0, cursor) for text in part.references()]
            assert rest == texts[seen:4]
    assert seen == 4
    assert len(blocks) == 3


def test_a_file_read_into_the_cache_is_read_again_only_after_a_change(rows, texts, tmp_path):
    make_tar(rows, tmp_path)
    behavior = Behavior()
    with serving(tmp_path, behavior) as address:
        options = {"text_column": "text", "cache_dir": tmp_path / "cache", "policy": BRIEF}
        assert load_table(DatasetSpec(name=f"{address}/0.tar", **options)).references() == texts[:3]
        first = len(behavior.seen)
        assert (
            load_table(DatasetSpec(name=f"{address}/0.tar", split="train[1:]", **options)).references()
            == texts[1:3]
        )
        again = len(behavior.seen) - first
        shutil.copy(tmp_path / "1.tar", tmp_path / "0.tar")
        assert load_table(DatasetSpec(name=f"{address}/0.tar", **options)).references() == texts[3:]
    assert again < first


def test_splits_of_a_stream_are_chosen_by_name(rows, texts, tmp_path):
    for name, part in (("train", rows[:2]), ("validation", rows[2:])):
        (tmp_path / name).mkdir()
        pyarrow.parquet.write_table(embedded(part), tmp_path / name / "0.parquet")
    with serving(tmp_path) as address:
        for spec in (str(tmp_path), f"{address}/"):
            (stream,) = load_streams(
                DatasetSpec(name=spec, split="validation+train", text_column="text", policy=BRIEF)
            )
            assert [row.reference for row in all_rows(stream)] == texts[2:] + texts[:2]
            assert len({row.sample_id for row in all_rows(stream)}) == ROWS
            with pytest.raises(InputError, match="no split 'test': choose one of train, validation"):
                load_streams(DatasetSpec(name=spec, split="test", policy=BRIEF))
            with pytest.raises(InputError, match="has several splits"):
                load_streams(DatasetSpec(name=spec, policy=BRIEF))
    with pytest.raises(InputError, match=r"split 'train\[:10%\]' of data set .* is a slice, and a stream"):
        load_streams(DatasetSpec(name=str(tmp_path), split="train[:10%]"))


def test_joined_streams_have_their_own_columns(rows, texts, tmp_path):
    parquet, manifest = make_parquet(rows, tmp_path), make_manifest(rows, tmp_path)
    with serving(tmp_path) as address:
        first, second = load_streams(
            DatasetSpec(
                name=f"{address}/{parquet}+{tmp_path}/{manifest}", text_column="text+text", policy=BRIEF
            )
        )
        assert [row.reference for row in all_rows(first)] == [row.reference for row in all_rows(second)]
    with pytest.raises(InputError, match=r"3 text columns \(a\+b\+c\) for 2 data sets"):
        load_streams(DatasetSpec(name="x+y", text_column="a+b+c"))


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("gs://b/{a+b,c}.tar+hub/id", ["gs://b/{a+b,c}.tar", "hub/id"]),
        ("https://h/a+b/x.parquet+s3://y/*.tar", ["https://h/a+b/x.parquet", "s3://y/*.tar"]),
        ("https://h/x.tar?sign=a%2Bb+owner/name", ["https://h/x.tar?sign=a%2Bb", "owner/name"]),
        ("gs://b/folder/+gs://b/other", ["gs://b/folder/", "gs://b/other"]),
        ("gs://b/one+gs://b/two+owner/name", ["gs://b/one", "gs://b/two+owner/name"]),
    ],
)
def test_a_plus_within_an_address_is_part_of_it(spec, names):
    assert [source.name for source in DatasetSpec(name=spec).parts()] == names


def test_what_cannot_be_streamed_is_told_in_one_sentence(rows, tmp_path):
    (tmp_path / "corpus").mkdir()
    name = make_parquet(rows, tmp_path / "corpus")
    (tmp_path / "corpus" / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    shutil.copy(tmp_path / "corpus" / "train-0.parquet", tmp_path / "odd.tar")
    (tmp_path / "packed.tar.gz").write_bytes(gzip.compress(b"x"))
    behavior = Behavior()
    with serving(tmp_path, behavior) as address:
        for spec, options, message in (
            (f"corpus/{name}", {"text_column": "words"}, "no column 'words': name one of audio, text"),
            ("corpus/lost.parquet", {}, r"lost\.parquet: it does not exist"),
            ("corpus/*.tar", {}, r"no file matches '.*/corpus/\*\.tar'"),
            ("corpus/{a,b.tar", {}, "its braces do not match"),
            ("corpus/train-{0..2}.parquet", {}, r"train-2\.parquet: it does not exist"),
            ("packed.tar.gz", {}, "it is compressed"),
            ("corpus/notes.*", {}, r"cannot read '.*notes\.txt' as a data set: expected a Hub id"),
            ("empty/", {}, "folder '.*empty/' holds no data set: expected"),
            ("odd.tar", {}, r"cannot read '.*odd\.tar': it is damaged or cut short"),
        ):
            for read in (load_streams, load_tables):
                with pytest.raises(InputError, match=message) as caught:
                    read(DatasetSpec(name=f"{address}/{spec}", policy=BRIEF, **options))
                assert "\n" not in str(caught.value)
        behavior.failing, behavior.faults = 1.0, ["403"]
        with pytest.raises(SourceError, match="no permission"):
            load_streams(DatasetSpec(name=f"{address}/corpus/{name}", policy=BRIEF))
    with pytest.raises(SourceError, match=r"cannot read http://no-such-host\.invalid/.*source_retry_seconds"):
        load_streams(DatasetSpec(name="http://no-such-host.invalid/*.tar", policy=BRIEF))


def test_one_recording_that_is_not_there_is_a_bad_sample_and_a_server_that_is_not_is_an_error(rows, tmp_path):
    name = make_manifest(rows, tmp_path)
    (tmp_path / "some clips" / Path(rows[1]["audio"]).name).unlink()
    behavior = Behavior()
    with serving(tmp_path, behavior) as address:
        reader = SampleReader(load_table(DatasetSpec(name=f"{address}/{name}", policy=BRIEF)), policy=BRIEF)
        assert reader.read(0).duration_seconds > 0
        with pytest.raises(SampleError, match="it does not exist"):
            reader.read(1)
        behavior.failing, behavior.faults = 1.0, ["500"]
        with pytest.raises(SourceError, match="answered 500"):
            reader.read(2)
