"""Pseudo-labels, evaluation and transcripts of real prompts, unusable recordings among them."""

import csv
import json
import os
import subprocess
import sys

import pytest

from flax_distil.cli.main import main
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_table
from flax_distil.metrics.word_errors import word_errors
from flax_distil.text.normalizers import get_normalizer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def labeled(flawed, tiny_en_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("labels") / "labelled"
    flags = {
        "model": tiny_en_dir, "dataset_name": flawed, "per_device_eval_batch_size": 4,
        "return_timestamps": "true", "generation_max_length": 48, "output_dir": out,
    }  # fmt: skip
    assert main(["pseudo-label", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    return out


def test_pseudo_labels_keep_columns_order_and_timestamps(labeled):
    rows = load_table(DatasetSpec(name=str(labeled)))
    assert rows.column("speaker") == [7, 7, 7]
    assert rows.column("whisper_transcript")[0].startswith("<|0.00|> That conference is full.<|")
    assert all(text.startswith("<|0.00|>") for text in rows.column("whisper_transcript"))
    assert rows.column("wer") == [0.0, 0.0, None]
    assert all(1 < seconds < 10 for seconds in rows.durations())
    assert all(-1 < value < 0 for value in rows.column("avg_logprob"))


def test_pseudo_labeling_lists_what_was_skipped_and_why(labeled):
    summary = json.loads((labeled / "summary.json").read_text())
    assert (summary["samples"], summary["labelled"], summary["wer"]) == (5, 3, 0.0)
    assert summary["skipped"] == {"with unreadable audio": 1, "without speech": 1}
    assert "cannot read" in summary["skipped_samples"]["flawed:1"]
    assert "no speech was found" in summary["skipped_samples"]["flawed:2"]
    throughput = json.loads((labeled / "throughput.json").read_text())
    assert throughput["rtfx"] > 0
    assert throughput["compile_seconds"] > 0


@pytest.fixture(scope="module")
def evaluated(flawed, prompts_dir, tiny_en_dir, tmp_path_factory):
    """An evaluation of the teacher and of what cutting its decoder leaves, in quiet and in noise."""
    folder = tmp_path_factory.mktemp("evaluation")
    given = {"teacher": tiny_en_dir, "decoder_layers": 1, "output_dir": folder / "cut"}
    assert main(["init-student", *(f"--{name}={value}" for name, value in given.items())]) == 0
    flags = {
        "model": f"{tiny_en_dir}+{folder / 'cut'}", "dataset_name": f"{flawed}+{prompts_dir / 'validation'}",
        "max_samples": 5, "per_device_eval_batch_size": 4, "generation_max_length": 48,
        "noise_types": "white", "snr_db": -5, "output_dir": folder / "report",
    }  # fmt: skip
    assert main(["eval", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    return folder / "report"


@pytest.mark.slow
def test_noise_and_cutting_make_errors_and_the_difference_is_no_luck(evaluated, tiny_en_dir):
    document = json.loads((evaluated / "results.json").read_text())
    teacher, student = (document["models"][name]["total"] for name in (tiny_en_dir.name, "cut"))
    assert teacher["clean"]["wer"] < 15 < teacher["white -5 dB"]["wer"]
    assert student["clean"]["wer"] > 80
    figures = document["models"][tiny_en_dir.name]["data_sets"]["flawed"]["clean"]
    assert (figures["samples"], figures["skipped"], figures["empty_references"]) == (3, 2, 1)
    assert "set mode to vad, chunked or sequential" in figures["skipped_samples"]["flawed:2"]
    line = document["comparisons"][0]
    assert (line["data_set"], line["condition"]) == (None, "clean")
    assert line["difference"] == pytest.approx(student["clean"]["wer"] - teacher["clean"]["wer"])
    assert max(line["p_bootstrap"], line["p_matched_pairs"]) < 0.05
    low, high = line["difference_interval"]
    assert 0 < low < line["difference"] < high


@pytest.mark.slow
def test_the_report_of_an_evaluation_shows_what_was_heard(evaluated, tiny_en_dir):
    with (evaluated / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["prediction"] == "That conference is full."
    own = [row for row in rows if (row["model"], row["condition"]) == (tiny_en_dir.name, "clean")]
    pairs = [row["reference"] for row in own], [row["prediction"] for row in own]
    document = json.loads((evaluated / "results.json").read_text())
    assert (
        document["models"][tiny_en_dir.name]["total"]["clean"]["wer"]
        == word_errors(*pairs, get_normalizer("en")).wer
    )
    page = (evaluated / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml") == 3
    assert "that conference is full" in page


@pytest.mark.slow
def test_a_data_set_without_usable_audio_writes_nothing(flawed, tiny_en_dir, tmp_path, capsys):
    path = flawed.with_name("broken.jsonl")
    path.write_text('{"audio": "broken.wav", "text": "Hello."}\n')
    out = tmp_path / "out"
    arguments = [f"--model={tiny_en_dir}", f"--dataset_name={path}", f"--output_dir={out}"]
    assert main(["pseudo-label", *arguments, "--generation_max_length=8"]) == 2
    assert "no recording of data set 'broken' can be transcribed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_multilingual_teacher_needs_a_language(flawed, base_dir, tmp_path, capsys):
    arguments = [f"--model={base_dir}", f"--dataset_name={flawed}", f"--output_dir={tmp_path / 'out'}"]
    assert main(["pseudo-label", *arguments]) == 2
    assert "multilingual: name the language" in capsys.readouterr().err


def test_a_transcript_is_replaced_only_on_request(prompts_dir, tmp_path, capsys):
    (tmp_path / "conf-full.json").write_text("mine")
    file = str(prompts_dir / "validation" / "conf-full.ogg")
    assert main(["transcribe", file, "--model=./nowhere", f"--output_dir={tmp_path}"]) == 2
    assert "already holds conf-full.json" in capsys.readouterr().err


def test_addresses_of_one_name_are_refused(capsys):
    assert main(["transcribe", "http://a.org/x.wav", "http://b.org/x.flac", "--model=./nowhere"]) == 2
    assert "'http://b.org/x.flac' would both be called x: write" in capsys.readouterr().err


def test_a_failed_upload_keeps_the_export_and_exits_with_1(tiny_en_dir, tmp_path):
    arguments = [
        "export", f"--model={tiny_en_dir}", f"--output_dir={tmp_path / 'copy'}", "--push_to_hub",
        "--hub_model_id=someone/copy",
    ]  # fmt: skip
    program = (
        "import sys; from flax_distil.checkpoints.hub import retries; from flax_distil.cli.main import main; "
        "retries.PAUSES_SECONDS = (0.01,); sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_secret"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "the export is safe in" in done.stderr
    assert "hf_secret" not in done.stderr
    assert (tmp_path / "copy" / "model.safetensors").is_file()
