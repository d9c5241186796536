"""The page of a training run: finished, stopped, or damaged, and in a browser."""

import json
import re
import time
from html.parser import HTMLParser

import pytest

from flax_distil.cli.main import main
from flax_distil.core.errors import InputError
from flax_distil.distillation.evaluation.predictions import Prediction, write_predictions
from flax_distil.reporting.config import ReportConfig
from flax_distil.reporting.job import run as report
from flax_distil.reporting.run_data import read_run
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.paths import upload_folder
from tests.chromium import needs_chromium, open_page
from tests.storage.buckets import LARGE_BODIES, running_gs

HOSTILE = '<script>alert("x")</script>'


def write_run(folder, *, steps=100, max_steps=100):
    """Write what a run of so many steps leaves, with texts that try to be HTML."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {
            "step": step, "loss": 9.0 / step, "ce_loss": 5.0 / step, "kl_loss": None if step == 30 else 1.0,
            "learning_rate": 1e-4, "grad_norm": 2.0, "samples_per_second": 5.0, "data_wait_share": 0.1,
            "audio_seconds_per_second": 30.0, "accuracy": 0.5,
        }
        for step in range(10, steps + 1, 10)
    ]  # fmt: skip
    for step in range(50, steps + 1, 50):
        lines += [
            {"step": step, "eval_clean_wer": 500.0 / step, "eval_clean_loss": 1.0},
            {"step": step, "eval_other_wer": 900.0 / step, "eval_other_loss": 2.0},
        ]
        bad = Prediction(
            id=HOSTILE, reference="one two", hypothesis=f"one {HOSTILE}", errors=1, words=2, position=0
        ).with_diff(str)
        good = Prediction(id="b", reference="one", hypothesis="one", errors=0, words=1, position=1).with_diff(
            str
        )
        write_predictions(folder, step, {"clean": [bad, good], "other": [good]})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    attempt = {
        "started": "2026-11-30T12:00:00+00:00", "written": "2026-11-30T13:00:00+00:00", "first_step": 0,
        "last_step": steps, "seconds_to_first_step": 60.0, "seconds": {"step": 3000.0, "lost": 60.0},
        "seconds_at_saves": {},
    }  # fmt: skip
    goodput = {
        "goodput": 0.8, "wall_seconds": 3600.0, "seconds": {"step": 3000.0, "compile": 540.0, "lost": 60.0},
        "seconds_between_attempts": 300.0, "attempts": [attempt, attempt],
    }  # fmt: skip
    (folder / "goodput.json").write_text(json.dumps(goodput))
    settings = {
        "max_steps": max_steps, "teacher_model_name_or_path": "openai/whisper-large-v3",
        "student_decoder_layers": 2, "train_dataset_name": HOSTILE, "eval_dataset_name": "a+b",
    }  # fmt: skip
    attempts = [
        {"started": attempt["started"], "arguments": {"language": HOSTILE}, "versions": {"jax": "1.2.3"}}
    ]
    model = {"encoder_layers": 32, "decoder_layers": 2, "parameters": 756_000_000}
    (folder / "run.json").write_text(
        json.dumps({"settings": settings, "attempts": attempts, "models": {"student": model}})
    )
    samples = {
        "dropped": {
            "speech": {"kept": {"rows": 1000, "seconds": 7200.0}, "too long": {"rows": 3, "seconds": 99.0}}
        },
        "skipped": {
            "counts": {"unreadable audio": 2},
            "samples": [{"id": HOSTILE, "kind": "unreadable audio", "reason": "bad"}],
        },
    }  # fmt: skip
    (folder / "samples.json").write_text(json.dumps(samples))
    return folder


class Tags(HTMLParser):
    """Collects the tags of a page, and checks that each is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.addresses = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "br", "img", "path", "circle", "polyline", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("circle", "polyline", "path", "line"):
            assert self.open.pop() == tag
        elif tag == "circle":
            assert "title" in self.seen


def page_of(folder):
    return report(ReportConfig(run_dir=str(folder))).read_text(encoding="utf-8")


def test_a_finished_run_has_every_section_and_nothing_that_is_loaded_or_run(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "model.safetensors").touch()
    page = page_of(folder)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "Curves", "Evaluations", "Most errors in clean, at the latest evaluation", "Samples of other",
        "Training data", "Where the time went", "2 attempts", "Settings",
    ]  # fmt: skip
    assert '<span class="badge finished">finished</span>' in page
    assert "clean: 5.00 % at step 100" in page
    assert "83.3% of 1 h 0 min went into steps that count" in page
    assert "2026-11-30 12:00 UTC" in page
    assert "2 decoder layers of the teacher (32 + 2 layers, 756.0 M parameters)" in page
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "script" not in tags.seen
    assert tags.addresses == []
    assert page.count("<figure>") == 9
    assert "KL, step 40: 1" in page


def test_a_divergence_that_no_loss_has_is_no_curve(tmp_path):
    folder = write_run(tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    record["settings"]["kl_weight"] = 0.0
    (folder / "run.json").write_text(json.dumps(record))
    page = page_of(folder)
    assert "cross-entropy, step 40" in page
    assert "KL, step" not in page


def test_a_run_is_running_while_its_lock_is_fresh_and_stopped_when_it_is_not(tmp_path):
    folder = write_run(tmp_path / "run", steps=50)
    assert read_run(folder).status == "stopped"
    lock = folder / "run.lock"
    lock.write_text(json.dumps({"beat_at": time.time()}))
    assert read_run(folder).status == "running"
    lock.write_text(json.dumps({"beat_at": time.time() - 600}))
    assert read_run(folder).status == "stopped"


@pytest.mark.parametrize(
    "damaged", ["run.json", "goodput.json", "samples.json", "evaluations/step-100.jsonl", "run.lock"]
)
@pytest.mark.parametrize("content", [None, "", "{", "[1]", '{"attempts": 3, "settings": []}\n'])
def test_a_file_that_is_missing_or_damaged_is_left_out(tmp_path, damaged, content):
    folder = write_run(tmp_path / "run")
    if content is None:
        (folder / damaged).unlink(missing_ok=True)
    else:
        (folder / damaged).write_text(content)
    assert "Curves" in page_of(folder)


def test_a_run_without_a_log_line_has_a_page_too(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    assert "There is no log line yet." in page_of(tmp_path)


def test_the_command_writes_where_it_is_told_to(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    target = tmp_path / "pages" / "one.html"
    assert main(["report", str(folder), "--output", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert "Training run: run" in target.read_text(encoding="utf-8")
    assert not (folder / "report.html").exists()


def test_a_folder_that_holds_no_run_is_refused_with_what_it_holds(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no metrics.jsonl" in capsys.readouterr().err
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "settings.json").touch()
    assert main(["report", str(tmp_path)]) == 2
    assert "holds an evaluation, whose report.html" in capsys.readouterr().err
    assert main(["report"]) == 2
    assert "missing RUN_DIR" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"let it end with .html"):
        ReportConfig(run_dir=str(tmp_path), output="page")


@LARGE_BODIES
def test_a_run_in_a_bucket_has_its_page_there(tmp_path, monkeypatch):
    with running_gs(monkeypatch):
        folder = BucketPath("gs://bucket/run")
        upload_folder(write_run(tmp_path / "run"), folder)
        assert main(["report", str(folder)]) == 0
        page = (folder / "report.html").read_text(encoding="utf-8")
    assert page == page_of(tmp_path / "run")


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("size", ["1280,2000", "390,2000"])
def test_chromium_says_nothing_about_the_page_and_no_part_is_wider_than_the_screen(tmp_path, size):
    folder = write_run(tmp_path / "run")
    page = page_of(folder)
    page = page.replace("default-src 'none'", "default-src 'unsafe-inline'").replace(
        "</body>",
        "<script>document.title = [document.documentElement.scrollWidth, innerWidth].join()</script></body>",
    )
    target = tmp_path / "page.html"
    target.write_text(page, encoding="utf-8")
    shown, messages = open_page(target.as_uri(), tmp_path / "profile", size)
    assert messages == []
    width, window = map(int, re.search(r"<title>(\d+),(\d+)</title>", shown).groups())
    assert width <= window
