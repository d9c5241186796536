"""Data sets by Hub id, from a Hub on the loopback interface, in a process of its own."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from tests.data.dataset_hub import running_hub

SCRIPT = """
import json, sys
from flax_distil.core.errors import InputError
from flax_distil.data.decoded_example import DurationLimits, SampleReader
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_table
from flax_distil.data.decoded_example import decode_row
from tests.data.stream_checks import all_rows
answers = []
for options in json.loads(sys.argv[1]):
    try:
        if options.pop("stream", False):
            (stream,) = load_streams(DatasetSpec(**options))
            rows = all_rows(stream)
            texts, ids = [row.reference for row in rows], [row.sample_id for row in rows]
            seconds = decode_row(rows[0], DurationLimits()).duration_seconds
        else:
            data = load_table(DatasetSpec(**options))
            texts, ids = data.references(), data.ids()
            seconds = SampleReader(data).read(0).duration_seconds
        answers.append({"texts": texts, "ids": ids, "seconds": seconds})
    except InputError as error:
        answers.append({"error": str(error)})
print(json.dumps({"answers": answers, "torchcodec": "torchcodec" in sys.modules}))
"""


def write_parquet(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = [{"bytes": Path(row["audio"]).read_bytes(), "path": Path(row["audio"]).name} for row in rows]
    table = pyarrow.table({"audio": audio, "text": [row["text"] for row in rows]})
    features = datasets.Features({"audio": datasets.Audio(), "text": datasets.Value("string")})
    pyarrow.parquet.write_table(table.cast(features.arrow_schema), path)


@pytest.fixture(scope="module")
def hub(corpus_rows, tmp_path_factory) -> Iterator[str]:
    """The address of a Hub with three data sets."""
    root = tmp_path_factory.mktemp("hub")
    write_parquet(root / "someone/parquet/clean/train-00000-of-00001.parquet", corpus_rows[:2])
    write_parquet(root / "someone/parquet/clean/test-00000-of-00001.parquet", corpus_rows[2:3])
    write_parquet(root / "someone/parquet/other/train-00000-of-00001.parquet", corpus_rows[3:4])
    configs = "".join(f"- config_name: {name}\n  data_dir: {name}\n" for name in ("clean", "other"))
    (root / "someone/parquet/README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    for split, rows in (("train", corpus_rows[:2]), ("test", corpus_rows[2:3])):
        folder = root / "someone/files" / split
        folder.mkdir(parents=True)
        lines = []
        for row in rows:
            shutil.copy(row["audio"], folder)
            lines.append(json.dumps({"file_name": Path(row["audio"]).name, "text": row["text"]}) + "\n")
        (folder / "metadata.jsonl").write_text("".join(lines))
    (root / "someone/tars").mkdir()
    with tarfile.open(root / "someone/tars/train-000.tar", "w") as archive:
        for row in corpus_rows[:2]:
            path = Path(row["audio"])
            text = tarfile.TarInfo(f"{path.stem}.txt")
            text.size = len(row["text"].encode())
            archive.add(path, path.name)
            archive.addfile(text, io.BytesIO(row["text"].encode()))
    with running_hub(root) as endpoint:
        yield endpoint


def ask(hub: str, questions: list[dict], home: Path) -> list[dict]:
    """Answer questions in a process that knows this Hub only."""
    questions = [{**question, "text_column": "text"} for question in questions]
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(questions)],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout.splitlines()[-1])
    assert not reply["torchcodec"]
    return reply["answers"]


@pytest.fixture(scope="module")
def answers(hub, tmp_path_factory) -> list[dict]:
    parquet, files = {"name": "someone/parquet"}, {"name": "someone/files"}
    questions = [
        {**parquet, "config_name": "clean", "split": "test"},
        {"name": "someone/parquet+someone/parquet", "config_name": "other+clean", "split": "train+test"},
        {**parquet, "config_name": "clean", "split": "train[1:]"},
        {**files, "split": "train"},
        {**parquet, "config_name": "noisy", "split": "test"},
        {**parquet, "config_name": "clean", "split": "dev"},
        {**files, "split": "dev"},
        {"name": "nobody/nothing", "split": "train"},
    ]
    return ask(hub, questions, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def streamed(hub, tmp_path_factory) -> tuple[list[dict], Path]:
    """The answers of streams, and the folder where a download would be."""
    home = tmp_path_factory.mktemp("home")
    parquet, files = {"name": "someone/parquet"}, {"name": "someone/files"}
    questions = [
        {**parquet, "config_name": "clean", "split": "test"},
        {**parquet, "config_name": "clean", "split": "train+test"},
        {**files, "split": "train"},
        {"name": "someone/tars"},
        {"name": "hf://datasets/someone/parquet/other/*.parquet"},
        {**parquet, "config_name": "clean", "split": "dev"},
        {**parquet, "config_name": "clean", "split": "train[:50%]"},
        {**parquet, "config_name": "noisy"},
        {"name": "nobody/nothing"},
        {"name": "hf://datasets/someone/parquet/lost.parquet"},
    ]
    return ask(hub, [{**question, "stream": True} for question in questions], home), home


def texts(rows: list[dict]) -> list[str]:
    return [row["text"] for row in rows]


def test_a_configuration_and_split_of_a_hub_id_are_read(answers, corpus_rows):
    assert answers[0]["texts"] == texts(corpus_rows[2:3])
    assert answers[0]["ids"] == ["parquet/test:0"]
    assert answers[0]["seconds"] == pytest.approx(corpus_rows[2]["duration"], abs=0.01)


def test_two_hub_ids_have_their_own_configurations_and_splits(answers, corpus_rows):
    assert answers[1]["texts"] == texts([corpus_rows[3], corpus_rows[2]])


def test_a_slice_of_a_split_on_the_hub_is_read(answers, corpus_rows):
    assert answers[2]["texts"] == texts(corpus_rows[1:2])


def test_a_repository_of_loose_audio_files_is_read_without_torchcodec(answers, corpus_rows):
    assert answers[3]["texts"] == texts(corpus_rows[:2])
    assert answers[3]["seconds"] == pytest.approx(corpus_rows[0]["duration"], abs=0.01)


def test_configurations_splits_and_repositories_that_do_not_exist_are_told(answers):
    assert "noisy" in answers[4]["error"]
    assert "clean" in answers[4]["error"]
    assert "has no split 'dev': choose one of " in answers[5]["error"]
    assert "has no split 'dev': choose one of " in answers[6]["error"]
    assert "cannot load data set 'nobody/nothing'" in answers[7]["error"]
    assert all("\n" not in answer["error"] for answer in answers[4:])


def test_hub_ids_of_every_kind_are_streamed(streamed, corpus_rows):
    answers, _ = streamed
    assert answers[0]["texts"] == texts(corpus_rows[2:3])
    assert answers[0]["ids"] == ["parquet/test:0"]
    assert answers[1]["texts"] == texts(corpus_rows[:3])
    assert answers[1]["ids"][0] == "parquet/train-00000-of-00001:0"
    for answer in answers[2:4]:
        assert answer["texts"] == texts(corpus_rows[:2])
        assert answer["seconds"] == pytest.approx(corpus_rows[0]["duration"], abs=0.01)
    assert answers[4]["texts"] == texts(corpus_rows[3:4])


def test_a_stream_from_the_hub_keeps_no_recordings(streamed):
    _, home = streamed
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 5000


def test_what_cannot_be_streamed_from_the_hub_is_told(streamed):
    messages = [answer["error"] for answer in streamed[0][5:]]
    for message, wanted in zip(
        messages,
        (
            "has no split 'dev': choose one of train, test",
            "is a slice",
            "noisy",
            "cannot load data set 'nobody/nothing'",
            "it does not exist",
        ),
        strict=True,
    ):
        assert wanted in message
        assert "\n" not in message
