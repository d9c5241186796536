"""Lines of an evaluation: whole after a kill, read once, and of one command only."""

import dataclasses

import pytest

from flax_distil.core.errors import InputError
from flax_distil.data.skipped import SkippedSample
from flax_distil.evaluation.output import EvaluationOutput
from flax_distil.evaluation.records import LatencySample, Session, encode_record
from tests.evaluation.test_scores import SESSION, prediction

KEY = ("./models/a b", "x/y", "white -5 dB")
LINES = [
    SESSION,
    prediction(0, "Ünï\u2028code", 'a "quote"\nand a line'),
    SkippedSample(data_set="x", index=1, sample_id="r1", kind="unreadable", reason="is no audio"),
    LatencySample(id="r", duration=1.0, seconds=0.1, encoder_seconds=0.06, tokens=3, devices="1 x cpu"),
]


def begun(folder, **settings) -> EvaluationOutput:
    output = EvaluationOutput(str(folder), overwrite=False)
    output.check()
    output.begin(settings)
    return output


def test_lines_are_read_as_they_were_written(tmp_path):
    output = begun(tmp_path / "out")
    with output.writer(KEY, process=0) as writer:
        writer.write(*map(encode_record, LINES))
    records = output.records(KEY)
    assert list(records.lines) == LINES
    assert records.done == {0, 1}
    assert records.skipped.counts() == {"unreadable": 1}
    assert output.records((*KEY[:2], "clean")).lines == []


def test_models_and_data_sets_may_have_names_of_any_length(tmp_path):
    output = begun(tmp_path / "out")
    keys = [("models/" + "\u5927" * 80 + end, "d" * 250, "clean") for end in ("a", "b")]
    for key in keys:
        with output.writer(key, process=0) as writer:
            writer.write(encode_record(LINES[0] if key == keys[0] else LINES[1]))
    assert [list(output.records(key).lines) for key in keys] == [[LINES[0]], [LINES[1]]]


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_piece_of_a_line_does_not_count_and_is_gone_before_the_next(cut, tmp_path):
    output = begun(tmp_path / "out")
    with output.writer(KEY, process=0) as writer:
        writer.write(*map(encode_record, LINES))
    (path,) = (tmp_path / "out").rglob("00000.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert list(output.records(KEY).lines) == LINES[:-1]
    with output.writer(KEY, process=0) as writer:
        writer.write(encode_record(LINES[-1]))
    assert path.read_bytes() == whole


def test_processes_of_another_number_read_every_file_once(tmp_path):
    output = begun(tmp_path / "out")
    for process in range(5):
        with output.writer(KEY, process=process) as writer:
            writer.write(encode_record(dataclasses.replace(SESSION, process=process)))
    parts = [output.records(KEY, process=process, processes=2).lines for process in range(2)]
    found = [line.process for part in parts for line in part if isinstance(line, Session)]
    assert sorted(found) == list(range(5))


def test_another_command_is_refused_and_named(tmp_path):
    begun(tmp_path / "out", mode="short", seed=1)
    begun(tmp_path / "out", mode="short", seed=1)
    with pytest.raises(InputError, match="holds an evaluation with seed 1, not 2: choose another, or set"):
        begun(tmp_path / "out", mode="short", seed=2)


def test_a_folder_of_someone_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not empty"):
        begun(tmp_path)


def test_overwriting_begins_anew_and_keeps_other_files(tmp_path):
    output = begun(tmp_path / "out", seed=1)
    with output.writer(KEY, process=0) as writer:
        writer.write(*map(encode_record, LINES))
    for name in ("results.json", "thesis.txt"):
        (tmp_path / "out" / name).write_text("old")
    anew = EvaluationOutput(str(tmp_path / "out"), overwrite=True)
    anew.check()
    anew.begin({"seed": 2})
    assert anew.records(KEY).lines == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions", "thesis.txt"]


def test_a_full_disk_is_one_sentence(tmp_path):
    output = begun(tmp_path / "out")
    with open("/dev/full", "ab", buffering=0) as full, output.writer(KEY, process=0) as writer:
        writer._lines._file.close()
        writer._lines._file = full
        with pytest.raises(InputError, match=r"cannot write predictions/.*; make room, and the same command"):
            writer.write(encode_record(SESSION))


def test_without_a_folder_lines_are_kept_while_they_are_needed():
    with EvaluationOutput(None, overwrite=False) as output:
        output.check()
        output.begin({})
        with output.writer(KEY, process=0) as writer:
            writer.write(encode_record(SESSION))
        assert list(output.records(KEY).lines) == [SESSION]
    assert not output.folder.exists()


@pytest.mark.parametrize(
    "name", ["..", ".", "", "...", "../..", "/etc", "a/../../b", "a\0b", "con", "x" * 5000]
)
def test_no_name_of_a_model_or_data_set_leaves_the_folder(tmp_path, name):
    output = begun(tmp_path / "out")
    key = (name, name, "clean")
    with output.writer(key, process=0) as writer:
        writer.write(encode_record(SESSION))
    assert list(output.records(key).lines) == [SESSION]
    (written,) = (path for path in tmp_path.rglob("*.jsonl"))
    assert len(written.relative_to(output.work).parts) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
