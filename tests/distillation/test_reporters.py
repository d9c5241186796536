"""What TensorBoard and Weights & Biases are told, read back from their files."""

import json
import logging
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from flax_distil.core.errors import InputError
from flax_distil.distillation.evaluation.predictions import Prediction, read_predictions
from flax_distil.distillation.monitoring.config import ReportingConfig
from flax_distil.distillation.monitoring.reporters import weights_and_biases
from flax_distil.distillation.monitoring.reporters.open_reporters import check_reporters
from flax_distil.distillation.monitoring.reporters.reporter import Histogram
from flax_distil.distillation.monitoring.training_log import TrainingLog, read_metrics

SAMPLE = Prediction(
    id="speech/test:3", reference="To be | or not.", hypothesis="to bee or", errors=2, words=4, position=3
).with_diff(lambda text: text.lower().replace("|", "").replace(".", ""))
HISTOGRAM = Histogram(edges=np.linspace(-1, 1, 5), counts=np.array([1.0, 2.0, 3.0, 4.0]), mean_square=0.5)


def report(folder, *, service, steps=(1, 2), first_step=0):
    with TrainingLog(
        folder,
        max_steps=2,
        first_step=first_step,
        reporting=ReportingConfig(report_to=service, run_name="a run"),
        settings={"learning_rate": 0.5},
    ) as logs:
        for step in steps:
            logs.write(step, {"loss": 4.0 / step, "grad_norm": float("nan")})
            logs.write(step, {"wer": 50.0}, prefix="eval_")
        logs.predictions(steps[-1], {"speech": [SAMPLE]})
        logs.histograms(steps[-1], {"weights/a": HISTOGRAM})


def board_values(folder):
    (path,) = (folder / "tensorboard").iterdir()
    content, first, found = path.read_bytes(), 0, {}
    while first < len(content):
        size = int.from_bytes(content[first : first + 8], "little")
        event = Event.FromString(content[first + 12 : first + 12 + size])
        found |= {(value.tag, event.step): value for value in event.summary.value}
        first += size + 16
    return found


def test_tensorboard_has_scalars_settings_samples_and_histograms(tmp_path):
    report(tmp_path, service="tensorboard")
    values = board_values(tmp_path)
    assert values["loss", 2].simple_value == 2.0
    assert values["eval_wer", 1].simple_value == 50.0
    (text,) = values["predictions/speech/text_summary", 2].tensor.string_val
    line = text.decode().splitlines()[-1]
    assert line == "| speech/test:3 | 2/4 | to [-be-]{+bee+} or [-not-] |"
    (settings,) = values["settings/text_summary", 0].tensor.string_val
    assert "| learning\\_rate | 0.5 |" in settings.decode()
    histogram = values["weights/a", 2].histo
    assert (list(histogram.bucket), histogram.num, histogram.min) == ([1, 2, 3, 4], 10, -1)
    assert list(histogram.bucket_limit) == [-0.5, 0, 0.5, 1]
    assert histogram.sum_squares == 5.0


def test_the_kept_samples_are_read_back_as_they_were(tmp_path):
    report(tmp_path, service="none")
    assert read_predictions(tmp_path, 2) == {"speech": [SAMPLE]}
    assert read_predictions(tmp_path, 1) == {}
    assert not (tmp_path / "tensorboard").exists()


def wandb_records(folder):
    """Return the records of all files of wandb, which are logs of LevelDB behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(
        (folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns
    ):
        content, first, joined = path.read_bytes(), 7, b""
        while first < len(content):
            left = 32768 - first % 32768
            if left < 7:
                first += left
                continue
            _, size, kind = struct.unpack("<IHB", content[first : first + 7])
            part, first = content[first + 7 : first + 7 + size], first + 7 + size
            joined = joined + part if kind in (3, 4) else part
            if kind in (1, 4):  # whole, or the last part
                yield Record.FromString(joined)


def history(folder):
    rows = [
        record.history for record in wandb_records(folder) if record.WhichOneof("record_type") == "history"
    ]
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        for row in rows
    ]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "prompts")
    monkeypatch.setenv("WANDB_SILENT", "true")
    return tmp_path


@pytest.mark.filterwarnings("default")  # of wandb's own code
def test_wandb_has_it_all_offline_and_a_resumed_run_continues_the_same_one(offline, monkeypatch):
    import wandb

    token = "hf_secretsecretsecret"
    monkeypatch.setattr("sys.argv", ["flax-distil", "distil", "--hub_token", token])
    report(offline, service="wandb", steps=(1,))
    report(offline, service="wandb", steps=(2,), first_step=1)
    wandb.teardown()  # as at the end of a process: its service has written everything
    runs = [record.run for record in wandb_records(offline) if record.WhichOneof("record_type") == "run"]
    assert {(run.run_id, run.project, run.display_name) for run in runs} == {
        (json.loads((offline / "wandb.json").read_text())["id"], "prompts", "a run")
    }
    assert {item.key: item.value_json for item in runs[0].config.update}["learning_rate"] == "0.5"
    rows = history(offline)
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [4.0, 2.0]
    assert [row["train/global_step"] for row in rows if "eval/wer" in row] == [1, 2]
    assert any(row.get("weights/a/values") == [1, 2, 3, 4] for row in rows)
    (table,) = {path.read_text() for path in (offline / "wandb").rglob("*.table.json")}
    assert json.loads(table)["data"] == [["speech/test:3", "To be | or not.", "to bee or", 2, 4]]
    files = [path for path in (offline / "wandb").rglob("*") if path.is_file()]
    assert not [path for path in files if token.encode() in path.read_bytes()]


@pytest.mark.filterwarnings("default")
def test_a_run_at_wandb_that_cannot_begin_is_told_once_and_ends_nothing(offline, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_PROJECT", "a/b?c")  # no name of a project
    with caplog.at_level(logging.WARNING):
        report(offline, service="wandb")
    (warning,) = [record.getMessage() for record in caplog.records if "reported" in record.getMessage()]
    assert warning.startswith("nothing is reported to Weights & Biases (")
    assert len(read_metrics(offline)) == 4


def test_wandb_without_its_package_or_a_key_is_refused_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(weights_and_biases.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "flax-distil\[wandb\]"'):
        check_reporters(ReportingConfig(report_to="tensorboard,wandb"))
    check_reporters(ReportingConfig())


@pytest.mark.filterwarnings("default")
def test_wandb_without_a_key_is_refused_with_the_remedy(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match="wandb login"):
        check_reporters(ReportingConfig(report_to="wandb"))


@pytest.mark.parametrize(
    ("given", "services"),
    [("all", ("tensorboard", "wandb")), ("none", ()), ("wandb, tensorboard", ("tensorboard", "wandb"))],
)
def test_services_are_named_as_in_transformers(given, services):
    assert ReportingConfig(report_to=given).services == services


def test_an_unknown_service_is_refused():
    with pytest.raises(InputError, match="names 'mlflow': expected tensorboard, wandb"):
        ReportingConfig(report_to="tensorboard,mlflow")
