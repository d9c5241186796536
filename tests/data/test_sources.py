"""Every kind of source gives the same rows, and what does not exist is told before any work."""

import csv
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.core.errors import InputError
from flax_distil.data.dataset import SpeechDataset
from flax_distil.data.decoded_example import SampleReader
from flax_distil.data.naming import distinct_names
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_table, load_tables


@pytest.fixture(scope="module")
def rows(corpus_rows) -> list[dict]:
    return corpus_rows[:3]


def embedded(rows: list[dict]) -> pyarrow.Table:
    """The rows as the Hub stores them: bytes in a struct, marked as an Audio feature."""
    audio = [{"bytes": Path(row["audio"]).read_bytes(), "path": Path(row["audio"]).name} for row in rows]
    table = pyarrow.table({"audio": audio, "text": [row["text"] for row in rows]})
    features = datasets.Features({"audio": datasets.Audio(), "text": datasets.Value("string")})
    return table.cast(features.arrow_schema)


def make_jsonl(rows: list[dict], folder: Path) -> str:
    (folder / "clips").mkdir()
    lines = []
    for row in rows:
        name = shutil.copy(row["audio"], folder / "clips")
        lines.append(json.dumps({"audio_filepath": f"clips/{Path(name).name}", "text": row["text"]}))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n\n")
    return str(folder / "rows.jsonl")


def make_csv(rows: list[dict], folder: Path) -> str:
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "text"])
        writer.writeheader()
        writer.writerows({"path": row["audio"], "text": row["text"]} for row in rows)
    return str(folder / "rows.csv")


def make_audio_folder(rows: list[dict], folder: Path) -> str:
    for row in rows:
        shutil.copy(row["audio"], folder)
    lines = [{"file_name": Path(row["audio"]).name, "text": row["text"]} for row in rows]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def make_parquet_file(rows: list[dict], folder: Path) -> str:
    pyarrow.parquet.write_table(embedded(rows), folder / "rows.parquet")
    return str(folder / "rows.parquet")


def make_parquet_glob(rows: list[dict], folder: Path) -> str:
    pyarrow.parquet.write_table(embedded(rows[:1]), folder / "a.parquet")
    pyarrow.parquet.write_table(embedded(rows[1:]), folder / "b.parquet")
    return str(folder / "*.parquet")


def make_parquet_folder(rows: list[dict], folder: Path) -> str:
    (folder / "data").mkdir()
    pyarrow.parquet.write_table(embedded(rows), folder / "data" / "train-00000-of-00001.parquet")
    return str(folder)


def make_saved_folder(rows: list[dict], folder: Path) -> str:
    datasets.Dataset(embedded(rows)).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


KINDS = [
    make_jsonl,
    make_csv,
    make_audio_folder,
    make_parquet_file,
    make_parquet_glob,
    make_parquet_folder,
    make_saved_folder,
]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__[5:])
def test_every_kind_of_source_gives_the_same_speech_and_text(make, rows, tmp_path):
    data = load_table(
        DatasetSpec(name=make(rows, tmp_path), text_column="text", cache_dir=tmp_path / "cache")
    )
    assert data.references() == [row["text"] for row in rows]
    assert len(set(data.ids())) == len(rows)
    reader = SampleReader(data)
    for index, row in enumerate(rows):
        np.testing.assert_array_equal(reader.read(index).samples_W, decode_audio(row["audio"]))


def test_a_folder_of_recordings_without_metadata_is_a_data_set_without_texts(rows, tmp_path):
    for row in rows:
        shutil.copy(row["audio"], tmp_path)
    data = load_table(DatasetSpec(name=str(tmp_path)))
    assert len(data) == 3
    assert data.references() == [None] * 3
    assert SampleReader(data).read(0).samples_W is not None


def test_folders_called_like_splits_are_splits(rows, tmp_path):
    for name, part in (("train", rows[:2]), ("test", rows[2:])):
        (tmp_path / name).mkdir()
        make_audio_folder(part, tmp_path / name)
    assert load_table(DatasetSpec(name=str(tmp_path), split="train", text_column="text")).references() == [
        row["text"] for row in rows[:2]
    ]
    assert len(load_table(DatasetSpec(name=str(tmp_path), split="train+test"))) == 3
    assert load_table(
        DatasetSpec(name=str(tmp_path), split="train[1:]", text_column="text")
    ).references() == [rows[1]["text"]]
    with pytest.raises(InputError, match=r"has no split 'validation': choose one of test, train"):
        load_table(DatasetSpec(name=str(tmp_path), split="validation"))
    with pytest.raises(InputError, match="has several splits: choose one of"):
        load_table(DatasetSpec(name=str(tmp_path)))


def test_a_metadata_file_kept_in_two_formats_does_not_double_the_rows(rows, tmp_path):
    make_audio_folder(rows, tmp_path)
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{Path(rows[0]['audio']).name},copy\n")
    assert len(load_table(DatasetSpec(name=str(tmp_path)))) == 3


def test_splits_of_a_saved_dictionary_are_chosen_by_name(rows, tmp_path):
    table = datasets.Dataset(embedded(rows))
    parts = datasets.DatasetDict({"train": table.select([0, 1]), "test": table.select([2])})
    parts.save_to_disk(str(tmp_path / "both"))
    data = load_table(DatasetSpec(name=str(tmp_path / "both"), split="test", text_column="text"))
    assert data.references() == [rows[2]["text"]]


def test_splits_of_a_folder_of_parquet_files_are_chosen_by_name(rows, tmp_path):
    cache, folder = tmp_path / "cache", tmp_path / "folder"
    folder.mkdir()
    pyarrow.parquet.write_table(embedded(rows[:2]), folder / "train-00000-of-00001.parquet")
    pyarrow.parquet.write_table(embedded(rows[2:]), folder / "test-00000-of-00001.parquet")
    data = load_table(DatasetSpec(name=str(folder), split="test", text_column="text", cache_dir=cache))
    assert data.references() == [rows[2]["text"]]
    with pytest.raises(InputError, match=r"no split 'dev': choose one of (train, test|test, train)"):
        load_table(DatasetSpec(name=str(folder), split="dev", cache_dir=cache))


def test_joined_sources_have_their_own_splits_and_columns(rows, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first / "train", first / "test", second / "train"):
        folder.mkdir(parents=True)
    make_audio_folder(rows[:1], first / "train")
    make_audio_folder(rows[1:2], first / "test")
    lines = [{"file_name": rows[2]["audio"], "sentence": rows[2]["text"], "speaker": 1}]
    (second / "rows.jsonl").write_text(json.dumps(lines[0]) + "\n")
    data = load_table(
        DatasetSpec(name=f"{first}+{second / 'rows.jsonl'}", split="test+train", text_column="text+sentence")
    )
    assert data.references() == [rows[1]["text"], rows[2]["text"]]
    assert data.ids() == ["first/test:0", "rows/train:0"]
    assert data.table.column_names == ["audio", "text", "id"]
    assert [
        source.name for source in load_tables(DatasetSpec(name=f"{first}+{first}", split="train+test"))
    ] == [
        "first",
        "first-2",
    ]


def test_lists_joined_by_plus_are_paired_or_shared_and_never_guessed():
    sources = DatasetSpec(name="a/x+b/y", config_name="clean+other", split="train").parts()
    assert [(s.name, s.config_name, s.split) for s in sources] == [
        ("a/x", "clean", "train"),
        ("b/y", "other", "train"),
    ]
    assert (
        DatasetSpec(name="a/x", split="train.clean+train.other").parts()[0].split == "train.clean+train.other"
    )
    with pytest.raises(InputError, match=r"3 splits \(a\+b\+c\) for 2 data sets"):
        DatasetSpec(name="a/x+b/y", split="a+b+c").parts()
    with pytest.raises(InputError, match="empty name beside"):
        DatasetSpec(name="a/x+").parts()


def test_a_path_with_a_plus_in_its_name_is_not_taken_apart(rows, tmp_path):
    folder = tmp_path / "one+two"
    folder.mkdir()
    assert len(load_table(DatasetSpec(name=make_jsonl(rows, folder)))) == 3


def test_columns_are_checked_against_those_that_exist(rows, tmp_path):
    path = make_jsonl(rows, tmp_path)
    with pytest.raises(InputError, match=r"no column 'sentence': name one of audio, text"):
        load_table(DatasetSpec(name=path, text_column="sentence"))
    with pytest.raises(InputError, match=r"no column 'whisper_transcript'"):
        load_table(DatasetSpec(name=path, label_column="whisper_transcript"))
    parquet = make_parquet_file(rows, tmp_path)
    with pytest.raises(InputError, match=r"no column 'sound': name one of audio, text"):
        load_table(DatasetSpec(name=parquet, audio_column="sound", cache_dir=tmp_path / "cache"))


def test_a_column_of_numbers_is_not_audio(rows, tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"audio": [1.0, 2.0]}), tmp_path / "numbers.parquet")
    with pytest.raises(InputError, match=r"column 'audio' of data set .* expected encoded audio"):
        load_table(DatasetSpec(name=str(tmp_path / "numbers.parquet"), cache_dir=tmp_path / "cache"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"audio": "a.wav"}\nnot json\n', "line 2: not JSON"),
        ('["a.wav"]\n', "line 1: expected a JSON object, got list"),
        ('{"sound": "a.wav"}\n', r"no column of audio paths \(columns: sound\)"),
        ("", r"no column of audio paths \(columns: none\)"),
    ],
)
def test_a_damaged_manifest_is_told_by_line_or_column(content, message, tmp_path):
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        load_table(DatasetSpec(name=str(tmp_path / "rows.jsonl")))


def test_a_damaged_parquet_file_is_told(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 but nothing behind it PAR1")
    with pytest.raises(InputError, match=r"cannot (read|load) data set .*rows\.parquet'"):
        load_table(DatasetSpec(name=str(tmp_path / "rows.parquet"), cache_dir=tmp_path / "cache"))


def test_numbers_in_a_csv_stay_the_text_they_were(rows, tmp_path):
    (tmp_path / "rows.csv").write_text(f"file,text,duration\n{rows[0]['audio']},007,1.5\n")
    data = load_table(DatasetSpec(name=str(tmp_path / "rows.csv"), text_column="text"))
    assert data.references() == ["007"]
    assert data.durations() == [1.5]


def test_what_does_not_exist_is_told_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"missing\.jsonl' does not exist: expected a Hub id"):
        load_table(DatasetSpec(name=str(tmp_path / "missing.jsonl")))
    with pytest.raises(InputError, match="holds no data set"):
        load_table(DatasetSpec(name=str(tmp_path)))
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(InputError, match=r"cannot read .* as a data set"):
        load_table(DatasetSpec(name=str(tmp_path / "note.txt")))
    with pytest.raises(InputError, match="cannot load data set 'nobody/nothing'"):
        load_table(DatasetSpec(name="nobody/nothing", cache_dir=tmp_path / "cache"))


def test_only_the_first_rows_are_kept_on_request(rows, tmp_path):
    assert len(load_table(DatasetSpec(name=make_jsonl(rows, tmp_path), max_samples=2))) == 2


def test_ids_of_a_source_are_kept_and_missing_ones_made(rows, tmp_path):
    lines = [{"audio": row["audio"], "id": name} for row, name in zip(rows, (7, None, 9), strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert load_table(DatasetSpec(name=str(tmp_path / "rows.jsonl"))).ids() == ["7", "rows:1", "9"]


def test_the_fingerprint_follows_the_recordings_and_not_the_texts(rows, tmp_path):
    path = make_jsonl(rows, tmp_path)
    data = load_table(DatasetSpec(name=path))
    before = data.fingerprint()
    assert load_table(DatasetSpec(name=path)).fingerprint() == before
    assert data.with_columns({"text": ["x"] * 3}).fingerprint() == before
    assert data.select([0, 1]).fingerprint() != before
    clip = Path(data.table[1]["audio"]["path"])
    clip.write_bytes(clip.read_bytes() + b"x")
    assert data.fingerprint() != before


def test_a_column_of_the_wrong_length_is_refused(speech: SpeechDataset):
    with pytest.raises(ValueError, match="has 1 values for 11 rows"):
        speech.with_columns({"wer": [1.0]})


def test_data_sets_of_one_name_are_told_apart(rows, tmp_path):
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    lists = [make_jsonl(rows, folder) for folder in folders]
    joined = "+".join([*lists, lists[0]])
    for sources in (load_tables(DatasetSpec(name=joined)), load_streams(DatasetSpec(name=joined))):
        assert [source.name for source in sources] == ["rows", "rows-2", "rows-3"]
    assert distinct_names(["a", "b", "a", "a-2"]) == ["a", "b", "a-3", "a-2"]
