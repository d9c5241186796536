"""Evaluations of toys: reported in parts, stopped anywhere, gone on with, one model at a time."""

import csv
import gc
import json

import jax
import pytest

from flax_distil.cli.main import main
from flax_distil.core.nested import build
from flax_distil.evaluation import latency
from flax_distil.evaluation import output as eval_output
from flax_distil.evaluation.config import EvalConfig
from flax_distil.evaluation.job import run
from flax_distil.evaluation.records import Prediction, decode_record
from flax_distil.pipeline.transcription_model import TranscriptionModel
from flax_distil.storage.line_files import LineWriter
from tests.toys import write_prompts, write_teacher

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_partitioner")]

USABLE = 3
"""Recordings of each data set; one more is no audio."""


@pytest.fixture(scope="module")
def settings(teacher, tiny_en_dir, prompts_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    other = write_teacher(folder / "other.en", tiny_en_dir, seed=1)
    prompts = write_prompts(folder, prompts_dir)
    return {
        "model_name_or_path": f"{teacher}+{other}", "dataset_name": f"{prompts}+{prompts}",
        "max_samples": USABLE + 1, "per_device_eval_batch_size": 4, "generation_max_length": 4,
        "latency_samples": 2,
        "noise_types": ["white"], "snr_db": [0.0],
    }  # fmt: skip


def evaluate(settings, folder, **changes):
    return run(build(EvalConfig, **settings | {"output_dir": str(folder)} | changes))


@pytest.fixture(scope="module")
def alone():
    """Transcribers of single recordings and what they found, in order."""
    return []


@pytest.fixture(scope="module")
def whole(settings, alone, tmp_path_factory):
    """A folder of an evaluation that nothing stopped."""
    folder, transcribe = tmp_path_factory.mktemp("whole") / "report", latency._ModelAlone.transcribe

    def noted(model, sample):
        alone.append((model, transcribe(model, sample)))
        return alone[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency._ModelAlone, "transcribe", noted)
        evaluate(settings, folder)
    return folder


@pytest.fixture(scope="module")
def results(whole):
    return json.loads((whole / "results.json").read_text())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def untimed(value):
    """Leave out what no two runs share: seconds, speeds and how often the command was started."""
    timed = ("second", "rtfx", "latency", "speed", "sessions", "config")
    if isinstance(value, dict):
        return {name: untimed(part) for name, part in value.items() if not any(t in name for t in timed)}
    return [untimed(part) for part in value] if isinstance(value, list) else value


def test_models_data_sets_and_conditions_are_reported_apart(results):
    assert list(results["models"]) == ["toy.en", "other.en"]
    assert results["baseline"] == "toy.en"
    for entry in results["models"].values():
        assert list(entry["data_sets"]) == ["prompts", "prompts-2"]
        for conditions in [entry["total"], *entry["data_sets"].values()]:
            assert list(conditions) == ["clean", "white 0 dB"]
        first, second = (figures["clean"] for figures in entry["data_sets"].values())
        assert untimed(first) == untimed(second)
        assert (first["samples"], first["skipped"]) == (USABLE, 1)
        assert entry["total"]["clean"]["samples"] == 2 * USABLE
        assert entry["parameters"] > 1_000_000


def test_speed_is_measured_in_batches_and_alone_and_compiling_apart(results):
    for entry in results["models"].values():
        speed = entry["speed"]
        assert (speed["batch_size"], speed["latency"]["samples"]) == ([4], 2)
        assert speed["rtfx"] == pytest.approx(speed["audio_seconds"] / speed["compute_seconds"])
        assert 0 < speed["latency"]["median_seconds"] <= speed["latency"]["p90_seconds"]
    first, second = (entry["speed"] for entry in results["models"].values())
    assert first["compile_seconds"] > 0
    assert first["relative_rtfx"] == first["latency"]["relative_latency"] == 1
    assert second["relative_rtfx"] == second["rtfx"] / first["rtfx"]


def test_models_take_turns_where_latency_is_measured_and_the_encoder_counts_apart(results, alone):
    first, second = alone[0][0], alone[1][0]
    assert [model for model, _ in alone] == [first, second] * 3
    ids = [sample.id for _, sample in alone]
    assert ids[0] == ids[1] == ids[2] == ids[3] != ids[4] == ids[5]  # the first recording twice
    assert all(0 < sample.encoder_seconds < sample.seconds for _, sample in alone)
    for entry in results["models"].values():
        found = entry["speed"]["latency"]
        assert 0 < found["median_decoder_seconds"] < found["median_seconds"]


def test_every_recording_under_every_condition_is_a_row(whole, results):
    with (whole / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 * USABLE
    own = [row for row in rows if (row["model"], row["condition"]) == ("toy.en", "clean")]
    total = results["models"]["toy.en"]["total"]["clean"]
    kinds = ("substitutions", "deletions", "insertions")
    errors = sum(int(row[kind]) for row in own for kind in kinds)
    words = sum(int(row["reference_words"]) for row in own)
    assert total["wer"] == pytest.approx(100 * errors / words)
    assert {row["prediction"] for row in own} != {
        row["prediction"] for row in rows if (row["model"], row["condition"]) == ("toy.en", "white 0 dB")
    }


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(0, marks=pytest.mark.slow),
        9,
        pytest.param(20, marks=pytest.mark.slow),
        pytest.param(33, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_stopped_goes_on_and_ends_as_if_it_had_not(lines, settings, whole, results, tmp_path):
    """Stopped after so many lines, in the middle of the next."""
    written, write = [], LineWriter.write

    def stopping(writer, *given):
        if len(written) == lines:
            writer._lines._file.write(b'{"prediction": {"index":')
            raise KeyboardInterrupt
        written.append(given)
        write(writer, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LineWriter, "write", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluate(settings, tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()

    again = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            LineWriter, "write", lambda writer, *given: (again.append(given), write(writer, *given))
        )
        evaluate(settings, tmp_path / "out")
    records = [decode_record(line) for part in (written, again) for (line, *_) in part]
    rows = [record for record in records if isinstance(record, Prediction)]
    assert len(rows) == 2 * 2 * 2 * USABLE  # nothing was done twice
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert untimed(found) == untimed(results)
    assert contents(tmp_path / "out")["predictions.csv"] == contents(whole)["predictions.csv"]


def test_the_same_command_does_nothing_twice(settings, whole, monkeypatch, capsys):
    monkeypatch.setattr(TranscriptionModel, "load", None)
    before = contents(whole)
    evaluate(settings, whole)
    assert contents(whole) == before
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in table[1:7]] == ["prompts", "prompts-2", "total"] * 2
    # the same predictions, compared otherwise
    assert evaluate(settings, whole, baseline_model="other.en")["comparisons"][0]["model"] == "toy.en"


def test_a_condition_that_holds_is_an_exit_status_of_its_own_and_transcribes_nothing(
    settings, whole, monkeypatch, capsys, caplog
):
    monkeypatch.setattr(TranscriptionModel, "load", None)
    others = {name: value for name, value in settings.items() if name not in ("noise_types", "snr_db")}
    command = ["eval", *(f"--{name}={value}" for name, value in others.items()), "--noise_types", "white"]
    command += ["--snr_db", "0", f"--output_dir={whole}", "--fail_if", "wer > 1000", "cer < 0"]
    assert main([*command, "skipped >= 2"]) == 3
    assert "toy.en: skipped is 2, and fail_if says skipped >= 2" in caplog.text
    failures = json.loads((whole / "results.json").read_text())["failures"]
    assert [failure.partition(":")[0] for failure in failures] == ["toy.en", "other.en"]
    assert main(command) == 0


def test_another_command_in_its_folder_is_refused_before_weights_are_read(settings, whole, capsys):
    changed = {name: value for name, value in settings.items() if name not in ("noise_types", "snr_db")}
    arguments = [f"--{name}={value}" for name, value in changed.items()]
    assert main(["eval", *arguments, f"--output_dir={whole}"]) == 2
    assert "holds an evaluation with noise_types ['white'], not None: choose" in capsys.readouterr().err


@pytest.mark.slow
def test_other_weights_in_the_same_place_are_noticed(settings, teacher, tiny_en_dir, prompts_dir, tmp_path):
    alone = settings | {"model_name_or_path": str(tmp_path / "model"), "noise_types": None, "snr_db": None}
    write_teacher(tmp_path / "model", tiny_en_dir, seed=2)
    evaluate(alone, tmp_path / "out")
    write_teacher(tmp_path / "model", tiny_en_dir, seed=3)
    with pytest.raises(Exception, match="holds an evaluation with weights of model"):
        evaluate(alone, tmp_path / "out")
    evaluate(alone, tmp_path / "out", overwrite_output_dir=True)


@pytest.mark.slow
def test_one_model_is_on_the_devices_at_a_time(settings, monkeypatch):
    """Weights of the first are gone when those of the second are read."""
    held, load = [], TranscriptionModel.load

    def noted(model):
        if not model._params:
            gc.collect()
            held.append(sum(array.nbytes for array in jax.live_arrays()))
        return load(model)

    monkeypatch.setattr(TranscriptionModel, "load", noted)
    evaluate(settings, None, output_dir=None, latency_samples=0)
    assert len(held) == 2
    assert held[1] - held[0] < 1_000_000  # a toy has 7 million bytes


@pytest.mark.slow
def test_without_a_folder_nothing_is_left(settings, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(eval_output.tempfile, "tempdir", str(tmp_path))
    evaluate(settings, None, output_dir=None, noise_types=None, snr_db=None)
    assert "toy.en" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"text_column_name": "words"}, "no column 'words'"), ({"model_name_or_path": "./nowhere"}, "nowhere")],
)
def test_what_does_not_fit_is_said_before_weights_are_read(
    changes, sentence, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(TranscriptionModel, "load", None)
    with pytest.raises(Exception, match=sentence):
        evaluate(settings, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
