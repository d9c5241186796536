"""Pseudo-labelling is killed, cut off from its disk and repeated; the data set is always the same."""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.cli.main import main
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_streams, load_table
from flax_distil.pseudo_labeling.config import PseudoLabelConfig
from flax_distil.pseudo_labeling.output import LabelOutput
from flax_distil.pseudo_labeling.splits import open_splits
from flax_distil.transcription.short_form import ShortFormTranscriber
from tests import quick_compilation
from tests.checkpoints.hub_server import TOKEN
from tests.toys import write_teacher

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_partitioner")]

ROOT = Path(__file__).parents[2]
BROKEN, LONG = 5, 9
KINDS = pytest.mark.parametrize("streaming", [False, True], ids=["table", "stream"])

Flags = dict[str, object]


def write_corpus(folder: Path, prompts_dir: Path, *, rows: int, files: int) -> Path:
    """Write recorded prompts as Parquet files, one that is no audio and one of 40 s among them."""
    prompts = prompts_dir / "train"
    lines = (prompts / "metadata.jsonl").read_text().splitlines()[:rows]
    table = [
        {"audio": {"bytes": (prompts / row["file_name"]).read_bytes(), "path": row["file_name"]}}
        | {"text": row["text"], "number": number}
        for number, row in enumerate(map(json.loads, lines))
    ]
    gap = np.zeros(SAMPLING_RATE, np.float32)
    parts = [part for row in table for part in (decode_audio(row["audio"]["bytes"]), gap)]
    long = io.BytesIO()
    soundfile.write(long, np.resize(np.concatenate(parts), 40 * SAMPLING_RATE), SAMPLING_RATE, format="FLAC")
    table[BROKEN]["audio"] = {"bytes": b"this is not audio", "path": "broken.wav"}
    table[LONG]["audio"] = {"bytes": long.getvalue(), "path": "long.flac"}
    size = -(-rows // files)
    for number in range(files):
        part = pyarrow.Table.from_pylist(table[number * size : (number + 1) * size])
        pyarrow.parquet.write_table(part, folder / f"part-{number}.parquet", row_group_size=5)
    return folder


def arguments(flags: Flags) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def label(flags: Flags) -> int:
    return main(["pseudo-label", *arguments(flags)])


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files but the one that tells how long it took."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "throughput.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def finished_units(folder: Path) -> list[tuple[int, ...]]:
    texts = [path.read_text() for path in sorted(folder.glob(".labelling/progress-*.jsonl"))]
    lines = [line for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [tuple(json.loads(line)["key"]) for line in lines]


def kill_at_random(flags: Flags, random: np.random.Generator, *, within: float) -> float:
    """Run the command in a process that is killed, begun or further on, and return the seconds it lost."""
    folder = Path(str(flags["output_dir"]))
    before = finished_units(folder)
    process = subprocess.Popen(
        [sys.executable, ROOT / "run_pseudo_label.py", *arguments(flags)],
        env={
            **os.environ,
            **quick_compilation.environment(),
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wanted, last = len(before) + int(random.integers(0, 3)), time.monotonic()
    found = before
    while process.poll() is None and len(found) < wanted:
        time.sleep(0.01)
        now = finished_units(folder)
        if len(now) != len(found):
            found, last = now, time.monotonic()
    time.sleep(random.uniform(0, within))
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), errors
    after = finished_units(folder)
    assert len(after) == len(set(after)), "a unit was labelled twice"
    assert set(before) <= set(after) or (folder / "index.json").exists()
    return time.monotonic() - last


@contextlib.contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """Have the system refuse to let Parquet files of the labels grow beyond a size, as a full disk does."""
    write, before = LabelOutput.write_shard, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(*args, **options):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            return write(*args, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelOutput, "write_shard", limited)
        yield


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, prompts_dir, tiny_en_dir) -> tuple[Path, Path]:
    """A teacher of random weights, and a corpus."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "corpus").mkdir()
    teacher = write_teacher(folder / "teacher", tiny_en_dir)
    return teacher, write_corpus(folder / "corpus", prompts_dir, rows=14, files=3)


@pytest.fixture(scope="module")
def flags(workplace) -> Flags:
    teacher, corpus = workplace
    return {
        "model": teacher, "dataset_name": corpus, "per_device_eval_batch_size": 3, "samples_per_shard": 3,
        "generation_max_length": 8, "vad": "energy", "dataset_cache_dir": corpus.parent / "cache",
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory) -> dict[bool, Path]:
    """The data set that no run was killed for, from a table and streamed."""
    folders = {kind: tmp_path_factory.mktemp("whole") / "labels" for kind in (False, True)}
    for streaming, folder in folders.items():
        assert label({**flags, "streaming": streaming, "output_dir": folder}) == 0
    return folders


@KINDS
def test_a_killed_run_goes_on_to_the_same_bytes(flags, whole, tmp_path, streaming):
    given = {**flags, "streaming": streaming, "output_dir": tmp_path / "labels"}
    random = np.random.default_rng(int(streaming))
    for _ in range(1 + streaming):
        kill_at_random(given, random, within=1.0)
    assert label(given) == 0
    assert contents(tmp_path / "labels") == contents(whole[streaming])


@pytest.mark.slow
@KINDS
def test_ten_kills_of_a_real_teacher_change_no_byte(tiny_en_dir, prompts_dir, tmp_path, streaming, capsys):
    (tmp_path / "corpus").mkdir()
    corpus = write_corpus(tmp_path / "corpus", prompts_dir, rows=60, files=4)
    given = {
        "model": tiny_en_dir, "dataset_name": corpus, "per_device_eval_batch_size": 4, "samples_per_shard": 4,
        "streaming": streaming, "return_timestamps": "true", "generation_max_length": 48,
        "dataset_cache_dir": tmp_path / "cache",
    }  # fmt: skip
    assert label({**given, "output_dir": tmp_path / "whole"}) == 0
    random = np.random.default_rng(int(streaming))
    lost, kills, folder = 0.0, 0, tmp_path / "killed"
    while kills < 10:
        lost += kill_at_random({**given, "output_dir": folder}, random, within=3.0)
        kills += 1
    assert not (folder / "index.json").exists(), "it was finished before the tenth kill"
    finished = len(finished_units(folder))
    assert label({**given, "output_dir": folder}) == 0
    assert contents(folder) == contents(tmp_path / "whole")
    files = contents(folder)
    rows = len(load_table(DatasetSpec(name=str(folder))))
    with capsys.disabled():
        print(
            f"\n{kills} kills, {finished} units finished by then, {rows} rows, "
            f"{sum(map(len, files.values()))} bytes in {len(files)} files equal, {lost:.1f} s lost"
        )


@pytest.mark.parametrize("case", ["new", "overwrite"])
def test_a_run_killed_at_any_line_loses_one_unit_at_most(tmp_path, case):
    every_nth_line = 15
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_output.py"), tmp_path, case, str(every_nth_line)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 250


@KINDS
def test_rows_keep_their_order_and_columns_and_long_ones_are_cut(whole, streaming):
    data = load_table(DatasetSpec(name=str(whole[streaming]), text_column="text"))
    numbers = data.column("number")
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(14)) - {BROKEN}
    pieces = [row for row in map(data.row, range(len(data))) if row.values["number"] == LONG]
    assert len(pieces) > 1
    assert all(
        row.sample_id == f"{row.values['source_id']}@{row.values['offset_seconds']:.2f}" for row in pieces
    )
    assert [row.values["offset_seconds"] for row in pieces] == sorted(
        {r.values["offset_seconds"] for r in pieces}
    )
    others = [row for row in map(data.row, range(len(data))) if row.values["number"] != LONG]
    assert (
        {row.values["source_id"] for row in others}
        == {row.values["offset_seconds"] for row in others}
        == {None}
    )
    assert all(row.reference for row in others)
    assert not any(row.reference for row in pieces)
    for row in (*pieces, *others):
        assert len(decode_audio(row.audio["bytes"])) == pytest.approx(
            row.duration_seconds * SAMPLING_RATE, abs=1
        )
    summary = json.loads((whole[streaming] / "summary.json").read_text())
    assert (summary["samples"], summary["labelled"]) == (14, len(data))
    assert summary["skipped"] == {"with unreadable audio": 1}
    assert summary["audio_seconds"] == pytest.approx(sum(data.durations()))


def test_a_stream_gives_the_labels_of_a_table(whole):
    table, stream = (load_table(DatasetSpec(name=str(whole[kind]))) for kind in (False, True))
    for column in ("whisper_transcript", "number", "wer", "offset_seconds"):
        assert table.column(column) == stream.column(column)


@KINDS
def test_the_new_data_set_is_read_by_datasets_and_streamed_by_this_package(whole, streaming, tmp_path):
    folder = whole[streaming]
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    assert list(found) == ["train"]
    assert found["train"].features["audio"] == datasets.Audio()
    (stream,) = load_streams(
        DatasetSpec(name=str(folder), text_column="text", label_column="whisper_transcript")
    )
    ids = [
        name for shard in range(len(stream.shards)) for data, _ in stream.blocks(shard) for name in data.ids()
    ]
    assert ids == load_table(DatasetSpec(name=str(folder))).ids() == found["train"]["id"][:]
    index = json.loads((folder / "index.json").read_text())
    assert [file["file"] for file in index["files"]] == sorted(
        f"data/{path.name}" for path in folder.glob("data/*")
    )
    assert sum(file["rows"] for file in index["files"]) == len(ids)


def test_the_same_command_ends_at_once_when_all_is_done(flags, whole, caplog):
    before = {path: path.stat().st_mtime_ns for path in whole[False].rglob("*")}
    with caplog.at_level("INFO"):
        assert label({**flags, "output_dir": whole[False]}) == 0
    assert "is labelled already" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in whole[False].rglob("*")} == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"generation_max_length": 9}, "holds labels made with generation_max_length 8, not 9"),
        ({"samples_per_shard": 4}, "holds labels made with samples_per_shard 3, not 4"),
        ({"max_samples": 3}, "holds labels made with max_samples None, not 3"),
        ({"streaming": True}, "holds labels made with streaming False, not True"),
    ],
)
def test_labels_of_other_settings_are_not_mixed_in(flags, whole, capsys, changed, message):
    before = contents(whole[False])
    assert label({**flags, "output_dir": whole[False], **changed}) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "choose another, or set overwrite_output_dir" in error
    assert contents(whole[False]) == before


def test_labels_of_another_teacher_of_the_same_name_are_not_mixed_in(flags, tiny_en_dir, tmp_path, capsys):
    given = {**flags, "model": tmp_path / "teacher", "output_dir": tmp_path / "labels"}
    write_teacher(tmp_path / "teacher", tiny_en_dir)
    with disk_with_room_for(1000):
        assert label(given) == 2
    for path in (tmp_path / "teacher").glob("*.safetensors"):
        path.unlink()
    write_teacher(tmp_path / "other", tiny_en_dir, seed=1)
    for path in (tmp_path / "other").glob("*.safetensors"):
        path.rename(tmp_path / "teacher" / path.name)
    capsys.readouterr()
    assert label(given) == 2
    assert "holds labels of a teacher with other weights" in capsys.readouterr().err


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_an_index_of_something_else_is_left_alone(flags, tmp_path, capsys, overwrite):
    (tmp_path / "index.json").write_text("<html>")
    assert label({**flags, "output_dir": tmp_path, "overwrite_output_dir": overwrite}) == 2
    assert ("not written by flax-distil" if overwrite else "is not empty") in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]


def test_overwriting_begins_anew_and_leaves_other_files_alone(flags, tmp_path):
    folder = tmp_path / "labels"
    assert label({**flags, "max_samples": 7, "output_dir": folder}) == 0
    (folder / "thesis.json").write_text("mine")
    assert len(list(folder.glob("data/*"))) == 3
    assert label({**flags, "max_samples": 2, "output_dir": folder, "overwrite_output_dir": True}) == 0
    assert [path.name for path in folder.glob("data/*")] == ["train-00000.parquet"]
    data = load_table(DatasetSpec(name=str(folder)))
    assert len(data) == 2
    assert data.speaker_column is None  # nothing was cut: there is no recording to name
    assert (folder / "thesis.json").read_text() == "mine"


def test_neighbors_are_joined_up_to_30_seconds(flags, whole, tmp_path):
    folder = tmp_path / "joined"
    assert label({**flags, "samples_per_shard": 14, "concatenate_audio": True, "output_dir": folder}) == 0
    apart, joined = (
        load_table(DatasetSpec(name=str(path), text_column="text")) for path in (whole[False], folder)
    )
    assert 1 < len(joined) < len(apart) / 2
    assert max(joined.durations()) <= 30
    # Each recording is padded to whole steps of 0.02 s.
    assert 0 <= sum(joined.durations()) - sum(apart.durations()) < 0.02 * len(apart)
    texts = [" ".join(filter(None, data.references())) for data in (apart, joined)]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_without_room_finished_files_stay_and_the_same_command_goes_on(flags, whole, tmp_path, capsys):
    given = {**flags, "output_dir": tmp_path / "labels"}
    sizes = [path.stat().st_size for path in sorted(whole[False].glob("data/*"))]
    refused = next(number for number in range(1, len(sizes)) if sizes[number] > max(sizes[:number]))
    with disk_with_room_for(sizes[refused] - 1):
        assert label(given) == 2
    error = capsys.readouterr().err
    assert f"cannot write data/train-{refused:05d}.parquet in output_dir" in error
    assert "(File too large): the finished files there are safe; make room" in error
    assert finished_units(tmp_path / "labels") == [(0, number) for number in range(refused)]
    assert len(load_table(DatasetSpec(name=f"{tmp_path}/labels/data/*.parquet"))) > 0
    assert label(given) == 0
    assert contents(tmp_path / "labels") == contents(whole[False])


def test_a_folder_that_cannot_be_made_is_told_before_the_teacher_is_read(flags, capsys):
    assert label({**flags, "output_dir": "/proc/labels"}) == 2
    assert "output_dir '/proc/labels" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own call of httpx
def test_a_failed_upload_is_made_up_for_by_the_same_command(flags, whole, hub, monkeypatch, capsys, caplog):
    given = {
        **flags, "output_dir": whole[False], "push_to_hub": True, "hub_dataset_id": "someone/labels",
        "hub_private_repo": True,
    }  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.refuse_commits = True
    assert label(given) == 1
    assert "the same command uploads it without labelling again" in caplog.text
    hub.refuse_commits = False
    hub.failing_requests = 2  # at the start, and then
    assert label(given) == 0
    files = hub.commit("datasets/someone/labels", "main").files
    local = contents(whole[False])
    shards = {name for name in local if name.startswith("data/")}
    assert files.keys() == {*shards, "README.md", "labelling/train.json"}
    for name in (*shards, "README.md"):
        assert hub.file("datasets/someone/labels", name) == local[name]
    assert json.loads(hub.file("datasets/someone/labels", "labelling/train.json"))["summary"]["samples"] == 14
    assert "datasets/someone/labels" in hub.private


@pytest.fixture(scope="module")
def splits(workplace, flags) -> Flags:
    """Flags for a corpus of two splits."""
    folder = workplace[1].parent / "splits"
    folder.mkdir()
    for split, part in (("train", 0), ("validation", 2)):
        shutil.copy(workplace[1] / f"part-{part}.parquet", folder / f"{split}-0.parquet")
    return {**flags, "dataset_name": folder, "max_samples": 4, "dataset_split_name": "train+validation"}


@pytest.fixture(scope="module")
def parted(splits, tmp_path_factory) -> Path:
    """Labels of both splits."""
    folder = tmp_path_factory.mktemp("parted") / "labels"
    assert label({**splits, "output_dir": folder}) == 0
    return folder


def test_splits_stay_apart(parted, tmp_path):
    assert sorted(path.name for path in (parted / "data").iterdir()) == [
        "train-00000.parquet", "train-00001.parquet", "validation-00000.parquet", "validation-00001.parquet",
    ]  # fmt: skip
    found = datasets.load_dataset(str(parted), cache_dir=str(tmp_path))
    assert {split: rows["number"][:] for split, rows in found.items()} == {
        "train": [0, 1, 2, 3], "validation": [10, 11, 12, 13],
    }  # fmt: skip
    (stream,) = load_streams(DatasetSpec(name=str(parted), split="validation"))
    blocks = [data for shard in range(len(stream.shards)) for data, _ in stream.blocks(shard)]
    assert [number for data in blocks for number in data.column("number")] == [10, 11, 12, 13]
    summary = json.loads((parted / "summary.json").read_text())
    assert {name: part["labelled"] for name, part in summary["splits"].items()} == {
        "train": 4, "validation": 4,
    }  # fmt: skip
    assert summary["labelled"] == 8
    card = (parted / "README.md").read_text()
    assert "\n## train\n" in card
    assert "\n## validation\n" in card


@pytest.mark.slow
def test_splits_go_on_to_the_same_bytes(splits, parted, tmp_path, capsys):
    given = {**splits, "output_dir": tmp_path / "labels"}
    sizes = {path.name: path.stat().st_size for path in sorted((parted / "data").iterdir())}
    refused = max(sizes, key=lambda name: sizes[name])
    with disk_with_room_for(sizes[refused] - 1):
        assert label(given) == 2
    assert f"cannot write data/{refused}" in capsys.readouterr().err
    assert label(given) == 0
    assert contents(tmp_path / "labels") == contents(parted)


def test_several_data_sets_are_configurations(splits, tmp_path):
    source = str(splits["dataset_name"])
    other = shutil.copytree(source, tmp_path / "other")
    folder = tmp_path / "labels"
    sets = {"dataset_name": f"{source}+{other}", "dataset_split_name": "validation+train", "max_samples": 1}
    assert label({**splits, **sets, "output_dir": folder}) == 0
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.parquet")) == [
        "data/other/train-00000.parquet", "data/splits/validation-00000.parquet",
    ]  # fmt: skip
    for config, split, number in (("splits", "validation", 10), ("other", "train", 0)):
        data = load_table(DatasetSpec(name=str(folder), config_name=config))
        assert data.column("number") == [number]
        assert list(datasets.load_dataset(str(folder), config, cache_dir=str(tmp_path))) == [split]


LONG_DIGEST = hashlib.sha256(("é" * 300).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("names", "configs", "splits", "found"),
    [
        ("a", None, None, ["train"]),
        ("a", "de", "train[2:4]+test+train[:1]", ["de/train", "de/test"]),
        ("a", "../../x", "train", ["x/train"]),
        ("a", "é" * 300, "train", [f"{'é' * 20}_{LONG_DIGEST}/train"]),
        ("a+b", None, "test", ["a/test", "b/test"]),
        ("a+a", "de+fr", "train", ["de/train", "fr/train"]),
        ("a+a+b", None, "train+test+train", ["a/train", "a/test", "b/train"]),
        ("a+a", None, "train", None),
    ],
)
def test_parts_are_called_as_their_sources(names, configs, splits, found, prompts_dir, tmp_path):
    row = {"audio": str(next((prompts_dir / "train").glob("*.ogg")))}
    for name in set(names.split("+")):
        tables = {
            split: datasets.Dataset.from_list([row] * 4) for split in ("train", "test")[: 2 if splits else 1]
        }
        datasets.DatasetDict(tables).save_to_disk(str(tmp_path / name))
    config = build(
        PseudoLabelConfig,
        model_name_or_path="m",
        output_dir="out",
        dataset_name="+".join(str(tmp_path / name) for name in names.split("+")),
        dataset_config_name=configs,
        dataset_split_name=splits,
    )
    if found is None:
        with pytest.raises(InputError, match="is named twice"):
            open_splits(config)
        return
    parts = open_splits(config)
    assert [str(part.name) for part in parts] == found
    assert {len(part.source) for part in parts} <= {3, 4}
    assert len(parts[0].source) == (3 if configs == "de" else 4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own call of httpx
def test_a_second_split_on_the_hub_stands_beside_the_first(splits, hub, tmp_path, capsys):
    given = {**splits, "push_to_hub": True, "hub_model_id": "labels", "hub_token": TOKEN, "max_samples": 3}
    for split in ("train", "validation"):
        assert label({**given, "dataset_split_name": split, "output_dir": tmp_path / split}) == 0
    again = {**given, "max_samples": 2, "samples_per_shard": 1, "dataset_split_name": "train"}
    assert label({**again, "output_dir": tmp_path / "again"}) == 0
    repo = "datasets/someone/labels"
    assert hub.commit(repo, "main").files.keys() == {
        "README.md", "data/train-00000.parquet", "data/train-00001.parquet",
        "data/validation-00000.parquet", "labelling/train.json", "labelling/validation.json",
    }  # fmt: skip
    copy = tmp_path / "copy"
    for name in hub.commit(repo, "main").files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(hub.file(repo, name))
    found = datasets.load_dataset(str(copy), cache_dir=str(tmp_path / "cache"))
    assert {split: rows["number"][:] for split, rows in found.items()} == {
        "train": [0, 1], "validation": [10, 11, 12],
    }  # fmt: skip
    card = (copy / "README.md").read_text()
    assert [line for line in card.splitlines() if line.startswith("#")][1:] == ["## train", "## validation"]
    assert card.count("| recordings | 2 |") == card.count("| recordings | 3 |") == 1


@pytest.mark.slow
def test_a_teacher_whose_probabilities_are_no_numbers_is_told(flags, whole, tmp_path, capsys, caplog):
    given = {**flags, "output_dir": tmp_path / "labels"}
    collect, calls = ShortFormTranscriber.collect, []

    def broken(self, batch):
        """Transcribe one row of the first batch, and nothing else."""
        calls.append(batch)
        first, *rest = collect(self, batch)
        lost = rest if len(calls) == 1 else [first, *rest]
        failed = [dataclasses.replace(transcript, avg_logprob=math.nan) for transcript in lost]
        return [first, *failed] if len(calls) == 1 else failed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShortFormTranscriber, "collect", broken)
        assert label(given) == 2
    error = capsys.readouterr().err
    assert "gives log-probabilities that are not finite for" in error
    assert "check its weights, or compute in float32 (dtype)" in error
    done = finished_units(tmp_path / "labels")
    assert label(given) == 0
    found, wanted = (
        load_table(DatasetSpec(name=str(folder))) for folder in (tmp_path / "labels", whole[False])
    )
    assert len(wanted) - len(found) == caplog.text.count(": the teacher's log-prob") == 2
    assert done == [(0, 0)]
