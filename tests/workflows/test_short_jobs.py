"""Pseudo-labels, evaluation and transcripts of real prompts, unusable recordings among them."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from flax_distil.audio import SAMPLING_RATE, decode_audio
from flax_distil.cli.main import main
from flax_distil.data import load_source
from flax_distil.metrics import word_errors
from flax_distil.text import normaliser

NAMES = ("conf-full", "all-circuits-busy-now", "agent-user")


@pytest.fixture(scope="module")
def flawed(prompts_dir, tmp_path_factory):
    """Three prompts (one without a reference), a file that is no audio, and one of 31 s."""
    folder = tmp_path_factory.mktemp("flawed")
    lines = (prompts_dir / "validation" / "metadata.jsonl").read_text().splitlines()
    texts = {row["file_name"]: row["text"] for row in map(json.loads, lines)}
    rows = []
    for name in NAMES:
        samples_W = decode_audio(prompts_dir / "validation" / f"{name}.ogg")
        soundfile.write(folder / f"{name}.wav", samples_W, SAMPLING_RATE)
        rows.append({"audio": f"{name}.wav", "text": texts[f"{name}.ogg"], "speaker": 7})
    rows[2]["text"] = None
    (folder / "broken.wav").write_bytes(b"this is not audio")
    soundfile.write(folder / "long.wav", np.zeros(31 * SAMPLING_RATE, np.float32), SAMPLING_RATE)
    rows[1:1] = [{"audio": f"{name}.wav", "text": "Hello.", "speaker": 8} for name in ("broken", "long")]
    path = folder / "flawed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def labelled(flawed, tiny_en_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("labels") / "labelled"
    flags = {
        "model": tiny_en_dir, "dataset_name": flawed, "per_device_eval_batch_size": 4,
        "return_timestamps": "true", "generation_max_length": 48, "output_dir": out,
    }  # fmt: skip
    assert main(["pseudo-label", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    return out


def test_pseudo_labels_keep_columns_order_and_timestamps(labelled):
    rows = load_source(str(labelled))
    assert rows.column("speaker") == [7, 7, 7]
    assert rows.column("whisper_transcript")[0].startswith("<|0.00|> That conference is full.<|")
    assert all(text.startswith("<|0.00|>") for text in rows.column("whisper_transcript"))
    assert rows.column("wer") == [0.0, 0.0, None]
    assert all(1 < seconds < 10 for seconds in rows.durations())
    assert all(-1 < value < 0 for value in rows.column("avg_logprob"))


def test_pseudo_labelling_lists_what_was_skipped_and_why(labelled):
    summary = json.loads((labelled / "summary.json").read_text())
    assert (summary["samples"], summary["labelled"], summary["wer"]) == (5, 3, 0.0)
    assert summary["skipped"] == {"with unreadable audio": 1, "without speech": 1}
    assert "cannot read" in summary["skipped_samples"]["flawed:1"]
    assert "no speech was found" in summary["skipped_samples"]["flawed:2"]
    throughput = json.loads((labelled / "throughput.json").read_text())
    assert throughput["rtfx"] > 0
    assert throughput["compile_seconds"] > 0


def test_data_sets_joined_by_plus_are_reported_apart(flawed, prompts_dir, tiny_en_dir, tmp_path, capsys):
    flags = {
        "model": tiny_en_dir, "dataset_name": f"{flawed}+{flawed}+{prompts_dir / 'validation'}",
        "max_samples": 4, "per_device_eval_batch_size": 4, "generation_max_length": 48,
        "output_dir": tmp_path / "report",
    }  # fmt: skip
    arguments = ["eval", *(f"--{name}={value}" for name, value in flags.items())]
    assert main(arguments) == 0
    document = json.loads((tmp_path / "report" / "results.json").read_text())
    results, total = document["results"], document["total"]
    assert list(results) == ["flawed", "flawed-2", "validation"]
    assert (results["flawed"]["samples"], results["flawed"]["skipped"]) == (2, 2)
    same = ("wer", "wer_ortho", "cer", "samples")
    assert [results["flawed"][key] for key in same] == [results["flawed-2"][key] for key in same]
    with (tmp_path / "report" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["dataset"] for row in rows] == ["flawed"] * 2 + ["flawed-2"] * 2 + ["validation"] * 4
    assert rows[0]["prediction"] == "That conference is full."
    for added in ("samples", "skipped", "audio_seconds", "compute_seconds", "compile_seconds"):
        assert total[added] == pytest.approx(sum(figures[added] for figures in results.values()))
    speeds = [figures["audio_seconds"] / figures["rtfx"] for figures in results.values()]
    assert total["rtfx"] == pytest.approx(total["audio_seconds"] / sum(speeds))
    pairs = [row["reference"] for row in rows], [row["prediction"] for row in rows]
    assert total["wer"] == word_errors(*pairs, normaliser("en")).wer
    table = [line.split()[0] for line in capsys.readouterr().out.splitlines()[-5:]]
    assert table == ["data", "flawed", "flawed-2", "validation", "total"]
    assert main(arguments) == 2
    assert "is not empty" in capsys.readouterr().err


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


def test_files_of_one_name_are_refused(capsys):
    assert main(["transcribe", "a/x.wav", "b/x.flac", "--model=./nowhere"]) == 2
    assert "'a/x.wav' and 'b/x.flac' would both be x.json" in capsys.readouterr().err


def test_a_failed_upload_keeps_the_export_and_exits_with_1(tiny_en_dir, tmp_path):
    arguments = ["export", f"--model={tiny_en_dir}", f"--output_dir={tmp_path / 'copy'}", "--push_to_hub"]
    done = subprocess.run(
        [sys.executable, "-m", "flax_distil.cli.main", *arguments],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_secret"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "the export is safe in" in done.stderr
    assert "hf_secret" not in done.stderr
    assert (tmp_path / "copy" / "model.safetensors").is_file()
