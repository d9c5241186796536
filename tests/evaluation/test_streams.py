"""Data sets that are streamed: read no further than needed, with the results of a table, from any stop on."""

import csv
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.data.stream import IterableSpeechDataset
from flax_distil.evaluation.config import EvalConfig
from flax_distil.evaluation.job import run
from flax_distil.evaluation.records import Records, SkippedSample, StreamPosition
from flax_distil.evaluation.streams import BEGINNING, EvaluationStream, is_finished, restart_position
from flax_distil.storage.line_files import LineWriter
from tests.data.flaky_http_server import Behavior, serving
from tests.evaluation.test_job import contents, untimed
from tests.evaluation.test_scores import prediction as made_up
from tests.toys import write_teacher

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_partitioner")]

FILES, ROWS_PER_FILE = 8, 2
UNREADABLE = 5


def write_files(folder: Path, prompts_dir: Path, *, files: int = FILES) -> Path:
    """Write prompts into Parquet files, one of them no audio."""
    folder.mkdir(parents=True)
    source = prompts_dir / "validation"
    lines = (source / "metadata.jsonl").read_text().splitlines()[: files * ROWS_PER_FILE]
    rows = [json.loads(line) for line in lines]
    audio = [{"bytes": (source / row["file_name"]).read_bytes(), "path": row["file_name"]} for row in rows]
    audio[UNREADABLE]["bytes"] = b"this is not audio"
    table = pyarrow.table({"audio": audio, "text": [row["text"] for row in rows]})
    for number in range(files):
        part = table.slice(number * ROWS_PER_FILE, ROWS_PER_FILE)
        pyarrow.parquet.write_table(part, folder / f"test-{number:05d}.parquet")
    return folder


@pytest.fixture(scope="module")
def files(prompts_dir, tmp_path_factory) -> Path:
    return write_files(tmp_path_factory.mktemp("sets") / "prompts", prompts_dir)


def settings(teacher, name, folder, **changes):
    return {
        "model_name_or_path": str(teacher), "dataset_name": str(name), "per_device_eval_batch_size": 1,
        "generation_max_length": 4, "noise_types": ["white"], "snr_db": [0.0], "output_dir": str(folder),
        **changes,
    }  # fmt: skip


def evaluate(*args, **changes):
    return run(build(EvalConfig, **settings(*args, **changes)))


@pytest.fixture(scope="module")
def table(teacher, files, tmp_path_factory):
    """The report of the same rows, read as a table."""
    folder = tmp_path_factory.mktemp("table") / "report"
    evaluate(teacher, files, folder)
    return folder


@pytest.fixture(scope="module")
def whole(teacher, files, tmp_path_factory):
    """The report of a stream from this disk that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole") / "report"
    evaluate(teacher, files, folder, streaming=True)
    return folder


def check_same(folder: Path, other: Path) -> None:
    assert contents(folder)["predictions.csv"] == contents(other)["predictions.csv"]
    found = [untimed(json.loads((path / "results.json").read_text())) for path in (folder, other)]
    assert found[0] == found[1]


def texts(folder: Path) -> list[list[str]]:
    """Return the rows of a report without confidences, whose last digits depend on what is decoded beside."""
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [[row[name] for name in ("condition", "id", "duration", "prediction", "wer")] for row in rows]


def predicted(written: list[str]) -> list[str]:
    return [line for line in written if line.startswith('{"prediction"')]


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """The lines that evaluations write."""
    lines, write = [], LineWriter.write
    monkeypatch.setattr(
        LineWriter, "write", lambda writer, *given: (write(writer, *given), lines.extend(given))[0]
    )
    return lines


def bodies(behavior: Behavior) -> list[str]:
    """Return the files of which more was asked for than the byte that comes with their sizes."""
    return [Path(path).name for _, path, part in behavior.seen if part != "bytes=0-0"]


def test_a_stream_is_transcribed_before_it_was_read_to_its_end_and_the_results_are_those_of_a_copy(
    teacher, files, table, whole, tmp_path, monkeypatch
):
    behavior, first = Behavior(), []
    write = LineWriter.write

    def noting(writer, *lines):
        if predicted(list(lines)) and not first:
            first.extend(bodies(behavior))
        write(writer, *lines)

    monkeypatch.setattr(LineWriter, "write", noting)
    with serving(files.parent, behavior) as address:
        name = f"{address}/prompts/test-{{00000..0000{FILES - 1}}}.parquet"
        evaluate(teacher, name, tmp_path / "out", streaming=True)
    check_same(tmp_path / "out", whole)
    assert texts(whole) == texts(table)
    assert len(texts(whole)) == 2 * (FILES * ROWS_PER_FILE - 1)
    assert "test-00000.parquet" in first
    assert max(first) < f"test-{FILES - 2:05d}.parquet"
    # Once to see the columns, once to transcribe: both conditions hear a part before it is gone.
    counts = {file: bodies(behavior).count(file) for file in set(bodies(behavior))}
    assert counts.pop("test-00000.parquet") == 2
    assert set(counts.values()) == {1}


def test_of_a_few_samples_no_other_file_is_read(teacher, files, table, tmp_path):
    behavior = Behavior()
    with serving(files.parent, behavior) as address:
        name = f"{address}/prompts/test-{{00000..0000{FILES - 1}}}.parquet"
        evaluate(
            teacher, name, tmp_path / "out", streaming=True, max_samples=3, noise_types=None, snr_db=None
        )
    assert set(bodies(behavior)) == {"test-00000.parquet", "test-00001.parquet"}
    assert texts(tmp_path / "out") == [row for row in texts(table) if row[0] == "clean"][:3]


@pytest.mark.parametrize("stop", [pytest.param(3, marks=pytest.mark.slow), 29])
def test_a_stopped_stream_goes_on_where_it_was_and_reads_nothing_before(
    stop, teacher, files, whole, tmp_path, monkeypatch, written
):
    write = LineWriter.write

    def stopping(writer, *lines):
        if len(written) == stop:
            raise KeyboardInterrupt
        write(writer, *lines)

    behavior = Behavior()
    with serving(files.parent, behavior) as address:
        name = f"{address}/prompts/test-{{00000..0000{FILES - 1}}}.parquet"
        with monkeypatch.context() as patch:
            patch.setattr(LineWriter, "write", stopping)
            with pytest.raises(KeyboardInterrupt):
                evaluate(teacher, name, tmp_path / "out", streaming=True)
        behavior.seen.clear()
        evaluate(teacher, name, tmp_path / "out", streaming=True)
        again = bodies(behavior)
        behavior.seen.clear()
        evaluate(teacher, name, tmp_path / "out", streaming=True)  # all is there
    check_same(tmp_path / "out", whole)
    # Only a part that was not finished is transcribed again, and so many rows of it there were.
    assert len(predicted(written)) == 2 * (FILES * ROWS_PER_FILE - 1) + 1
    if stop == 29:  # in the third part, whose first row is in the fifth file
        assert again == [f"test-{number:05d}.parquet" for number in (0, *range(4, FILES))]
    assert set(bodies(behavior)) == {"test-00000.parquet"}


@pytest.mark.slow
def test_models_with_one_encoder_share_a_stream(teacher, files, tiny_en_dir, tmp_path):
    other = write_teacher(tmp_path / "other.en", tiny_en_dir)
    models = f"{teacher}+{other}"
    evaluate(models, files, tmp_path / "table")
    behavior = Behavior()
    with serving(files.parent, behavior) as address:
        name = f"{address}/prompts/test-{{00000..0000{FILES - 1}}}.parquet"
        evaluate(models, name, tmp_path / "out", streaming=True)
    assert texts(tmp_path / "out") == texts(tmp_path / "table")
    assert bodies(behavior).count("test-00003.parquet") == 1


def test_babble_of_a_stream_is_refused(teacher, files, tmp_path):
    with pytest.raises(InputError, match="babble is made of recordings from all over"):
        evaluate(teacher, files, tmp_path, streaming=True, noise_types=["babble"])


def test_the_place_to_go_on_is_the_last_one_before_all_that_is_missing():
    def skipped(index):
        return SkippedSample(index=index, sample_id="", kind="", reason="")

    def prediction(index):
        return made_up(index, "", "")

    positions = [StreamPosition(row=2), StreamPosition(row=4, cursor=[2], skipped=1)]
    ahead = Records([*positions, *map(prediction, range(5))])
    behind = Records([positions[0], prediction(0), prediction(1), skipped(2), prediction(4)])
    assert restart_position([ahead]) == positions[1]
    assert restart_position([ahead, behind]) == positions[0]
    assert restart_position([Records([])]) == BEGINNING
    stream = EvaluationStream(source=IterableSpeechDataset(name="a", shards=()))
    assert not is_finished(ahead, stream)
    assert is_finished(Records([*ahead.lines, StreamPosition(row=5, is_end=True)]), stream)
