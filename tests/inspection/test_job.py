"""Training data looked at before a run: figures, drops and samples as the pipeline gives them."""

import io
import json
import re
import sys

import numpy as np
import pytest
import soundfile
from matplotlib import image

from flax_distil.cli.main import main
from flax_distil.data.dataset import PSEUDO_LABEL_COLUMN
from flax_distil.inspection.token_text import token_lines
from flax_distil.text.tokenizer import WhisperTokenizer

pytestmark = pytest.mark.integration

MINUTES_OF_VALIDATION = 4.3


@pytest.fixture(scope="module")
def data_sets(prompts_dir, tmp_path_factory):
    """Two JSONL files of real prompts: one with speakers, timestamps and slips, one without durations."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {**row, "audio": str(prompts_dir / "validation" / row["file_name"])}
        for row in map(json.loads, (prompts_dir / "validation" / "metadata.jsonl").read_text().splitlines())
    ]
    spoken = []
    for number, row in enumerate(rows[:40]):
        end = round(row["duration"] * 50) / 50
        label = "Not at all what was said" if number % 10 == 3 else row["text"]
        spoken.append({
            "audio": row["audio"], "text": "" if number == 5 else row["text"], "duration": row["duration"],
            "speaker_id": f"speaker-{number // 10}", PSEUDO_LABEL_COLUMN: f"<|0.00|> {label}<|{end:.2f}|>",
        })  # fmt: skip
    plain = [
        {"audio": row["audio"], "text": row["text"], PSEUDO_LABEL_COLUMN: row["text"]} for row in rows[40:]
    ]
    (folder / "broken.wav").write_bytes(b"this is no audio")
    soundfile.write(folder / "long.flac", np.zeros(8000 * 31, np.int16), 8000)
    plain[3]["audio"], plain[7]["audio"] = str(folder / "broken.wav"), str(folder / "long.flac")
    for name, content in {"spoken": spoken, "plain": plain}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    return folder


@pytest.fixture(scope="module")
def inspected(data_sets, base_dir, tmp_path_factory):
    """A run over both: what it printed, its report and its folder."""
    out = tmp_path_factory.mktemp("inspected") / "report"
    flags = {
        "train_dataset_name": f"{data_sets}/spoken.jsonl+{data_sets}/plain.jsonl", "language": "en",
        "model_name_or_path": base_dir, "wer_threshold": 10, "concatenate_audio": "true", "output_dir": out,
        "timestamp_probability": 1, "condition_on_prev_probability": 1, "num_shown_samples": 6,
    }  # fmt: skip
    printed = io.StringIO()
    arguments = ["data", "inspect", *(f"--{name}={value}" for name, value in flags.items())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", printed)
        assert main(arguments) == 0
    return printed.getvalue(), json.loads((out / "report.json").read_text()), out, arguments


def test_hours_lengths_speakers_and_encodings_are_counted(inspected):
    printed, report, *_ = inspected
    spoken, plain = report["data_sets"]["spoken"], report["data_sets"]["plain"]
    assert (spoken["rows"], spoken["rows_kept"], plain["rows"], plain["rows_kept"]) == (40, 35, 40, 38)
    assert (spoken["speakers"], plain["speakers"]) == (4, None)
    assert (spoken["hours"] + plain["hours"]) * 60 == pytest.approx(MINUTES_OF_VALIDATION, rel=0.15)
    assert sum(spoken["hours_by_speaker"].values()) == pytest.approx(spoken["hours"])
    assert spoken["encodings"] == {"OGG OPUS, 16000 Hz, 1 channel": 35}
    assert plain["encodings"] == {
        "OGG OPUS, 16000 Hz, 1 channel": 38,
        "FLAC PCM_16, 8000 Hz, 1 channel": 1,
        "with unreadable audio": 1,
    }
    for figures in (spoken, plain):
        seconds = figures["sample_seconds"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["95%"] <= seconds["max"] <= 30
        assert figures["fill"] == pytest.approx(seconds["mean"] / 30)
        assert figures["samples"] < figures["rows_kept"] / 3
        assert figures["label_lengths"]["max"] <= 256
    assert re.search(r"^all: 0\.\d+ hours, 73 rows kept, 4 speakers$", printed, re.MULTILINE)


def test_drops_are_told_by_data_set_and_reason(inspected):
    printed, report, *_ = inspected
    dropped = report["data_sets"]["spoken"]["dropped"]
    rows = {reason: count["rows"] for reason, count in dropped.items()}
    assert rows == {"above the WER threshold": 4, "with an empty reference": 1}
    kinds = {sample["sample_id"]: sample["kind"] for sample in report["skipped"]["samples"]}
    assert kinds == {"plain:3": "with unreadable audio", "plain:7": "too long"}
    assert "  dropped: 4 above the WER threshold, 1 with an empty reference\n" in printed
    assert "broken.wav" in printed


def test_samples_show_every_token_with_its_role_and_whether_it_is_learned(inspected, base_dir):
    printed, report, *_ = inspected
    tokenizer = WhisperTokenizer.from_pretrained(base_dir)
    special = tokenizer.special
    assert len(report["samples"]) == 6
    for sample in report["samples"]:
        roles = [token["role"] for token in sample["tokens"]]
        tokens = [token["token"] for token in sample["tokens"]]
        start = roles.index("sot")
        opening = [special.sot, special.languages["en"], special.transcribe]
        assert tokens[start : start + 3] == opening
        assert roles[start : start + 3] == ["sot", "language", "task"]
        assert set(roles[:start]) <= {"prompt"}
        assert roles[-1] == "eot"
        assert [token["learned"] for token in sample["tokens"]] == [False] * (start + 1) + [True] * (
            len(roles) - start - 1
        )
        timed = sample["data_set"] == "spoken"
        assert (tokens[start + 3] == special.no_timestamps) == (not timed)
        times = [token["seconds"] for token in sample["tokens"] if token["seconds"] is not None]
        assert times == sorted(times)
        assert bool(times) == timed
        assert "".join(token["text"] for token in sample["tokens"]).endswith("<|endoftext|>")
    prompted = [sample for sample in report["samples"] if sample["tokens"][0]["role"] == "prompt"]
    assert prompted
    assert all(sample["data_set"] == "spoken" for sample in prompted)
    assert "given    <|startofprev|>|" in printed
    assert "\033" not in printed


def test_samples_are_those_that_training_sees_first(inspected):
    from flax_distil.checkpoints.checkpoint import load_checkpoint
    from flax_distil.checkpoints.tokenizer import read_tokenizer
    from flax_distil.cli.flags import read_flags
    from flax_distil.data.training.pipeline_config import PipelineConfig
    from flax_distil.data.training.training_data import load_training_data, training_pipeline
    from flax_distil.inspection.config import InspectConfig

    _, report, _, arguments = inspected
    config = read_flags(InspectConfig, arguments[2:], program="flax-distil data inspect")
    files = load_checkpoint(config.model.source, config_only=True).files
    data = load_training_data(config.data, read_tokenizer(files)[0])
    pipeline = training_pipeline(config.data, data, PipelineConfig(batch_size=9), seed=config.data.seed)
    batch = next(pipeline)
    pipeline.close()
    usable = np.flatnonzero(batch.valid_B)[: len(report["samples"])]
    assert len(usable) == 6
    for row, sample in zip(usable, report["samples"], strict=True):
        assert sample["id"] == batch.ids[row]
        tokens = [token["token"] for token in sample["tokens"]]
        assert tokens[:-1] == batch.decoder_input_ids_BT[row, : len(tokens) - 1].tolist()
        assert sum(token["learned"] for token in sample["tokens"]) == batch.loss_mask_BT[row].sum()


def test_pictures_are_drawn(inspected):
    *_, out, _ = inspected
    assert sorted(path.name for path in out.iterdir()) == ["report.json", "samples.png", "statistics.png"]
    for name in ("samples.png", "statistics.png"):
        pixels = image.imread(out / name)
        assert pixels.shape[1] > 1200
        assert pixels.std() > 0.1


def test_a_stream_is_read_from_its_beginning(data_sets, tiny_en_dir, tmp_path, capsys):
    flags = {
        "train_dataset_name": data_sets / "spoken.jsonl", "streaming": "true", "concatenate_audio": "true",
        "wer_threshold": 10, "model_name_or_path": tiny_en_dir, "output_dir": tmp_path / "report",
        "num_shown_samples": 1,
    }  # fmt: skip
    arguments = ["data", "inspect", *(f"--{name}={value}" for name, value in flags.items())]
    found = {}
    for rows in (20, 1000):
        assert main([*arguments, f"--max_stream_samples={rows}", "--overwrite_output_dir"]) == 0
        found[rows] = json.loads((tmp_path / "report" / "report.json").read_text())["data_sets"]["spoken"]
        assert ("(the stream goes on)" in capsys.readouterr().out) == (rows == 20)
    assert {rows: figures["complete"] for rows, figures in found.items()} == {20: False, 1000: True}
    assert (found[20]["rows"], found[20]["rows_kept"]) == (20, 17)
    assert (found[1000]["rows"], found[1000]["rows_kept"], found[1000]["speakers"]) == (40, 35, 4)
    assert found[1000]["dropped"]["above the WER threshold"]["rows"] == 4
    assert found[1000]["samples"] < 15


def test_a_report_is_replaced_only_on_request(inspected, capsys):
    *_, arguments = inspected
    assert main(arguments) == 2
    assert "is not empty" in capsys.readouterr().err


def test_without_matplotlib_it_is_said_before_any_work(data_sets, tiny_en_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    flags = [f"--train_dataset_name={data_sets}/plain.jsonl", f"--model_name_or_path={tiny_en_dir}"]
    assert main(["data", "inspect", *flags, f"--output_dir={tmp_path / 'out'}"]) == 2
    assert 'pip install "flax-distil[plots]"' in capsys.readouterr().err
    assert main(["data", "inspect", *flags]) == 0
    assert "38 rows kept" in capsys.readouterr().out


def test_long_runs_are_wrapped_and_colored_only_on_demand(inspected):
    from flax_distil.inspection.token_view import TokenView

    tokens = [
        TokenView(token=number, text=f" word{number}", role="text", learned=True) for number in range(40)
    ]
    plain = token_lines(tokens, width=60)
    assert all(len(line) <= 61 for line in plain)
    assert "|".join(line[29:].strip().rstrip("|") for line in plain) == "|".join(
        f"·word{n}" for n in range(40)
    )
    colored = token_lines(tokens, width=60, color=True)
    assert re.sub(r"\033\[[\d;]*m", "", "\n".join(colored)) == "\n".join(plain)
    assert colored != plain
