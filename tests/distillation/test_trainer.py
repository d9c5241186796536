"""Distillation from end to end with a toy teacher: what stops it, what it leaves, how it goes on."""

import gzip
import json
import re
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file
from tensorboardX.proto.event_pb2 import Event, SessionLog

from flax_distil.checkpoints.training.training_checkpoints import TrainingCheckpoints
from flax_distil.cli.main import main
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.evaluation.predictions import read_predictions
from flax_distil.distillation.job import run as run_distillation
from flax_distil.reporting.config import ReportConfig
from flax_distil.reporting.job import run as make_report
from tests.toys import (
    BROKEN_ROW,
    USABLE_PROMPTS,
    compilations,
    observe,
    write_changed,
    write_prompts,
    write_teacher,
)

pytestmark = pytest.mark.integration

STEPS = 6


@pytest.fixture(scope="module")
def prompts(prompts_dir, tmp_path_factory):
    return write_prompts(tmp_path_factory.mktemp("prompts"), prompts_dir)


@pytest.fixture(scope="module")
def spoken(prompts, tmp_path_factory):
    """The same prompts under the same name elsewhere, with their texts in another column."""
    folder = tmp_path_factory.mktemp("spoken")
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    lines = [{"audio": str(prompts.parent / row["audio"]), "words": row["text"]} for row in rows]
    path = folder / prompts.name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def settings(teacher, prompts):
    """Six updates in float32, with dropout so that a resumed run must find its random numbers again."""

    def settings(folder, **changes):
        values = {
            "teacher_model_name_or_path": str(teacher), "train_dataset_name": str(prompts),
            "student_decoder_layers": 1, "per_device_train_batch_size": 2, "max_steps": STEPS,
            "warmup_steps": 1, "learning_rate": 1e-2, "precision": "full", "dropout": 0.1,
            "logging_steps": 1, "save_steps": 2, "save_total_limit": 2, "dataloader_num_workers": 2,
            "output_dir": str(folder), "token": "very-secret", "hub_token": "very-secret",
        }  # fmt: skip
        return build(DistillConfig, values | changes)

    return settings


@pytest.fixture(scope="module")
def run(settings, prompts, tmp_path_factory):
    """An uninterrupted run with two evaluations."""
    evaluation = {
        "eval_dataset_name": str(prompts), "max_eval_samples": 3, "per_device_eval_batch_size": 2,
        "eval_steps": 3, "generation_max_length": 4,
    }  # fmt: skip
    return observe(settings(tmp_path_factory.mktemp("runs") / "run", **evaluation))


@pytest.fixture(scope="module")
def resumed(run, settings, tmp_path_factory):
    """The same run as if it had been killed after step 4, and continued."""
    folder = tmp_path_factory.mktemp("runs") / "resumed"
    shutil.copytree(run.folder, folder)
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints" / "checkpoint_6")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # cut short by the kill
    return observe(settings(folder, resume_from_checkpoint="latest", save_steps=1))


@pytest.fixture(scope="module")
def cached(teacher, settings, tmp_path_factory):
    """A run whose teacher is deleted on the way."""
    folder = tmp_path_factory.mktemp("runs")
    gone = shutil.copytree(teacher, folder / teacher.name)
    save = TrainingCheckpoints.save

    def save_and_delete(self, *args, **options):
        shutil.rmtree(gone, ignore_errors=True)
        save(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingCheckpoints, "save", save_and_delete)
        return observe(
            settings(
                folder / "cached",
                teacher_model_name_or_path=str(gone),
                cache_encoder_states=True,
                profile_steps="3:4",
            )
        )


@pytest.fixture(scope="module")
def tuned(teacher, prompts, spoken, settings, tmp_path_factory):
    """Fine-tuning without a teacher: encoder too, on references, two micro-batches, in bfloat16."""
    return observe(
        settings(
            tmp_path_factory.mktemp("runs") / "tuned",
            teacher_model_name_or_path=None,
            model_name_or_path=str(teacher),
            student_decoder_layers=None,
            label_column_name="",
            freeze_encoder=False,
            eval_dataset_name=f"{prompts}+{spoken}",
            eval_text_column_name="text+words",
            eval_streaming=True,
            max_eval_samples=2,
            per_device_eval_batch_size=2,
            generation_max_length=4,
            gradient_accumulation_steps=2,
            precision="half_mixed",
            dropout=0.0,
            max_steps=4,
            logging_steps=2,
        )
    )


def events(path):
    """Read the records of a TensorBoard file: length, checksum, content, checksum."""
    content, first = path.read_bytes(), 0
    while first < len(content):
        (size,) = struct.unpack_from("<Q", content, first)
        yield Event.FromString(content[first + 12 : first + 12 + size])
        first += size + 16


def checkpoints_of(run):
    return sorted(path.name for path in (run.folder / "checkpoints").iterdir())


def test_every_update_is_logged_with_its_losses_rate_and_speed(run):
    training = [line for line in run.lines if "loss" in line]
    assert [line["step"] for line in training] == list(range(1, STEPS + 1))
    for line in training:
        assert line["loss"] == pytest.approx(0.8 * line["ce_loss"] + line["kl_loss"], rel=1e-5)
        assert line["kl_loss"] > 0
        assert line["samples_per_second"] > 0
    rates = [line["learning_rate"] for line in training]
    assert rates == pytest.approx([0.0, 1e-2, 8e-3, 6e-3, 4e-3, 2e-3])


def test_training_lowers_the_loss(run):
    losses = run.by_step("loss")
    assert losses[STEPS] < losses[1]


def test_evaluations_are_logged_at_their_steps_and_the_last_one_is_returned(run):
    evaluated = [line for line in run.lines if "eval_loss" in line]
    assert [line["step"] for line in evaluated] == [3, STEPS]
    for line in evaluated:
        assert {"eval_ce_loss", "eval_kl_loss", "eval_accuracy", "eval_wer", "eval_seconds"} <= set(line)
        assert (line["eval_samples"], line["eval_skipped"]) == (2, 1)
    assert evaluated[1]["eval_loss"] != evaluated[0]["eval_loss"]
    (figures,) = run.result.evaluation.values()
    assert {f"eval_{name}": value for name, value in figures.items()} == {
        name: value for name, value in evaluated[-1].items() if name != "step"
    }


def test_samples_of_an_evaluation_are_kept_and_have_the_errors_of_its_rate(run):
    (samples,) = read_predictions(run.folder, STEPS).values()
    assert [sample.position for sample in samples] == [row for row in range(3) if row != BROKEN_ROW]
    rate = 100 * sum(sample.errors for sample in samples) / sum(sample.words for sample in samples)
    assert rate == pytest.approx(run.by_step("eval_wer")[STEPS])
    for sample in samples:
        differing = [part for part in sample.diff if part[0] != "equal"]
        assert bool(differing) == bool(sample.errors)


def test_tensorboard_has_samples_and_histograms_of_each_evaluation(run):
    (path,) = (run.folder / "tensorboard").iterdir()
    shown = {(value.tag, event.step) for event in events(path) for value in event.summary.value}
    assert {("predictions/prompts/text_summary", 3), ("predictions/prompts/text_summary", STEPS)} <= shown
    weights = {tag for tag, step in shown if step == STEPS and tag.startswith("weights/")}
    assert any(tag.startswith("weights/decoder/layer_00/") for tag in weights)
    assert not any("encoder/" in tag.removeprefix("weights/decoder/") for tag in weights)  # it is frozen


def test_a_run_has_a_page_with_what_was_left_out(run, tmp_path):
    target = tmp_path / "page.html"
    page = make_report(ReportConfig(run_dir=str(run.folder), output=str(target))).read_text()
    assert '<span class="badge finished">finished</span>' in page
    assert "Samples that could not be used: 1 with unreadable audio." in page
    assert f"prompts:{BROKEN_ROW}" in page
    assert "very-secret" not in page


def test_every_program_of_a_run_is_compiled_once(run):
    assert run.fns.train._cache_size() == 1
    assert run.fns.evaluate._cache_size() == 1
    assert run.fns.encode._cache_size() == 1


def test_an_unreadable_recording_is_skipped_counted_and_listed(run):
    (report,) = [message for message in run.messages if message.startswith("skipped")]
    assert report.splitlines()[0] == "skipped 1 samples: 1 with unreadable audio"
    assert f"prompts:{BROKEN_ROW}" in report
    assert run.result.steps == STEPS


@pytest.mark.parametrize("case", ["run", "cached"])
def test_the_export_is_a_student_of_the_asked_depth_that_has_the_teachers_encoder(case, teacher, request):
    """Also where the teacher's folder is gone by then."""
    run = request.getfixturevalue(case)
    assert json.loads((run.folder / "config.json").read_text())["decoder_layers"] == 1
    mine, theirs = (load_file(folder / "model.safetensors") for folder in (run.folder, teacher))
    for name, tensor in mine.items():
        if name.startswith("model.encoder."):
            np.testing.assert_array_equal(tensor, theirs[name].astype(np.float16), err_msg=name)
    trained, start = (tensors["model.decoder.embed_tokens.weight"] for tensors in (mine, theirs))
    assert np.abs(trained - start).max() > 1e-3


def test_only_the_newest_checkpoints_are_kept(run, resumed):
    assert checkpoints_of(run) == ["checkpoint_4", "checkpoint_6"]
    assert checkpoints_of(resumed) == ["checkpoint_5", "checkpoint_6"]


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(run, resumed):
    """The same data order, moments, rates and dropouts: to the last bit."""
    for name in ("loss", "ce_loss", "kl_loss", "grad_norm", "learning_rate"):
        assert resumed.by_step(name) == run.by_step(name), name
    mine, theirs = (load_file(folder / "model.safetensors") for folder in (resumed.folder, run.folder))
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(mine[name], tensor, err_msg=name)
    assert resumed.fns.train._cache_size() == 1


def test_tensorboard_shows_every_step_of_a_resumed_run_once(resumed):
    shown: list[int] = []
    for path in sorted((resumed.folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                shown = [step for step in shown if step < event.step]
            shown += [event.step for value in event.summary.value if value.tag == "loss"]
    assert shown == list(range(1, STEPS + 1))


def test_the_chosen_steps_are_recorded_for_xprof_and_perfetto(cached):
    (folder,) = (cached.folder / "profile" / "plugins" / "profile").iterdir()
    (space,) = folder.glob("*.xplane.pb")
    assert space.stat().st_size > 1000
    with gzip.open(folder / "perfetto_trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    named = [event["args"] for event in events if event.get("name") == "train" and "args" in event]
    assert {int(arguments["step_num"]) for arguments in named} == {3, 4}


def test_a_run_tells_what_it_is_made_of_and_no_secret(run, resumed):
    text = (resumed.folder / "run.json").read_text()
    assert "secret" not in text
    record = json.loads(text)
    first, second = record["attempts"]
    assert (first["arguments"]["save_steps"], second["arguments"]["save_steps"]) == (2, 1)
    assert second["settings_before"]["save_steps"] == 2
    assert "adam_beta1" not in second["arguments"]
    assert record["settings"]["adam_beta1"] == 0.9
    assert record["settings"]["freeze_encoder"] is True
    assert record["settings"]["samples_per_update"] == 2
    assert len(record["identities"]["teacher_weights"]) == 32
    assert second["devices"]["platform"] == "cpu"
    assert second["versions"]["jax"]
    assert len(second["flax_distil_git_commit"].partition("+")[0]) == 40
    assert not (run.folder / "run.lock").exists()


def test_wall_time_is_counted_over_all_attempts_and_what_was_done_again_is_lost(run, resumed):
    whole, both = (json.loads((each.folder / "goodput.json").read_text()) for each in (run, resumed))
    assert all(seconds > 0 for cause, seconds in whole["seconds"].items() if cause != "lost")
    assert whole["seconds"]["lost"] == 0
    first, second = both["attempts"]
    assert (first["last_step"], second["first_step"], second["last_step"]) == (4, 4, STEPS)
    assert first["seconds"]["lost"] > 0
    assert any(message.startswith("goodput: ") and "in 2 attempts" in message for message in resumed.messages)


def test_a_run_is_not_resumed_with_settings_that_change_it(run, settings, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    with (
        compilations() as compiled,
        pytest.raises(InputError, match=r"learning_rate was 0\.01 and is 1\.0; give"),
    ):
        run_distillation(settings(folder, resume_from_checkpoint="latest", learning_rate=1.0, save_steps=1))
    assert "train_step" not in str(compiled)
    assert (folder / "run.json").read_text() == (run.folder / "run.json").read_text()


def test_kept_encoder_states_train_like_encoding_anew(run, cached):
    """Rounding the states to bfloat16 moves the loss by 1e-5; states of another recording, by 1e-3."""
    assert cached.by_step("loss") == pytest.approx(run.by_step("loss"), rel=1e-4)
    assert cached.by_step("loss") != run.by_step("loss")
    done = np.fromfile(cached.folder / "encoder_cache" / "done.bin", np.uint8)
    assert done.sum() == USABLE_PROMPTS
    assert not done[BROKEN_ROW]
    assert cached.fns.train._cache_size() == cached.fns.encode._cache_size() == 1


def test_without_a_teacher_the_labels_alone_are_learned(tuned):
    lines = [line for line in tuned.lines if "loss" in line]
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert line["loss"] == pytest.approx(line["ce_loss"])
        assert line["kl_loss"] == 0
    assert lines[1]["loss"] < lines[0]["loss"]
    (evaluated,) = [line for line in tuned.lines if "eval_prompts_loss" in line]
    assert evaluated["eval_prompts_loss"] == pytest.approx(evaluated["eval_prompts_ce_loss"])
    assert evaluated["eval_prompts_kl_loss"] == 0
    assert tuned.fns.train._cache_size() == tuned.fns.evaluate._cache_size() == 1


def test_evaluation_sets_of_one_name_have_figures_of_their_own(tuned):
    """They hold the same recordings and texts, under other columns."""
    first, second = (tuned.result.evaluation[name] for name in ("prompts", "prompts-2"))
    for name in ("loss", "accuracy", "wer", "samples"):
        assert first[name] == second[name]
    logged = [[name for name in line if name.startswith("eval_prompts")] for line in tuned.lines]
    assert [names[0] for names in logged if names] == ["eval_prompts_loss", "eval_prompts-2_loss"]


def test_an_encoder_that_is_not_frozen_is_trained_but_for_its_positions(tuned, teacher):
    assert json.loads((tuned.folder / "config.json").read_text())["decoder_layers"] == 2
    mine, before = (load_file(folder / "model.safetensors") for folder in (tuned.folder, teacher))
    still = [name for name in mine if (mine[name] == before[name].astype(np.float16)).all()]
    assert still == ["model.encoder.embed_positions.weight"]


@pytest.mark.slow
def test_a_run_that_diverges_stops_and_names_its_samples_and_overwrites_nothing(
    settings, tmp_path, monkeypatch
):
    """A learning rate of 1e4 without clipping; checkpoints from before the numbers went wrong stay."""
    config = settings(
        tmp_path / "run", learning_rate=1e4, max_grad_norm=0.0, warmup_steps=0, max_steps=40, save_steps=1,
        lr_scheduler_type="constant", save_total_limit=None,
    )  # fmt: skip
    with pytest.raises(InputError, match="has diverged") as stopped:
        run_distillation(config)
    sentence = str(stopped.value)
    assert "in 3 updates in a row" in sentence
    assert "prompts:" in sentence
    step = int(re.search(r"stops at step (\d+)", sentence)[1])
    assert step < 40
    saved = sorted(int(path.name.rpartition("_")[2]) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert max(saved, default=0) <= step - 3
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_the_longest_labels_are_compiled_before_the_first_step(run):
    (said,) = [message for message in run.messages if message.startswith("compiled the training step")]
    assert "labels of up to 32 tokens" in said
    assert run.fns.train._cache_size() == 1  # no other batch had longer labels


@pytest.fixture
def refused(capsys):
    """Run the command and return its one sentence; nothing may be compiled."""

    def run(*arguments):
        with compilations() as compiled:
            assert main(["distil", *map(str, arguments)]) == 2
        (sentence,) = capsys.readouterr().err.splitlines()
        assert compiled == []
        return sentence

    return run


CONTRADICTIONS = [
    (["--cache_encoder_states", "--freeze_encoder=false"], "cache_encoder_states needs a frozen encoder"),
    (["--label_smoothing_factor=1"], "label_smoothing_factor 1.0 is not between"),
    (["--max_source_positions=751"], "max_source_positions is 751: expected whole seconds"),
    (['--lr_scheduler_kwargs={"steps": 3}', "--max_steps=900"], "lr_scheduler_kwargs names 'steps'"),
    (["--lr_scheduler_kwargs=3"], "expected a JSON object"),
    (["--resume_from_checkpoint=latest", "--overwrite_output_dir"], "contradict each other"),
    (["--resume_from_checkpoint=last"], "'last' is neither latest, auto nor a step"),
    (["--resume_from_checkpoint=latest"], "holds no checkpoints to resume from"),
    (["--student_decoder_layers=1", "--student_decoder_layer_indices", "0"], "are both given"),
    (["--model_name_or_path=x", "--student_decoder_layers=1"], "'x' is a student already"),
    (["--profile_steps=5:3"], "profile_steps '5:3' is not the first and the last step"),
    (["--eval_steps=5"], "without eval_dataset_name"),
    (["--eval_language=fr"], "eval_language fr is given without eval_dataset_name"),
    (["--eval_dataset_name=x", "--generation_num_beams=0"], "num_beams 0 is not between 1"),
    (["--warmup_steps=3", "--max_steps=3"], "warmup_steps 3 must be below max_steps 3"),
    (["--num_train_epochs=1"], "warmup_steps 500 must be below max_steps 1"),
    (["--per_device_train_batch_size=0"], "per_device_train_batch_size 0 is below 1"),
    (["--max_duration_in_seconds=31"], "max_duration_in_seconds <= 30"),
    (["--kl_weight=-1"], "kl_weight -1"),
    (["--ce_weight=0", "--kl_weight=0"], "all 0: nothing is learned"),
    (["--student_decoder_layers=3"], "decoder_layers is 3: expected 1 to 2"),
    (["--student_decoder_layer_indices", "0", "2"], "layers that the teacher lacks"),
    (["--eval_dataset_name=./nowhere", "--generation_max_length=445"], "room for 444 tokens"),
    (["--wer_threshold=10", "--label_column_name="], "no column of pseudo-labels"),
    (["--max_label_length=2"], "no sample of data set 'prompts' is left"),
    (["--language=klingon"], "unknown language 'klingon'"),
    (["--language=fr"], "'fr' with an English-only model"),
    (["--train_dataset_name=./nowhere"], "'./nowhere' does not exist"),
    (["--train_split_name=dev"], "no split 'dev'"),
    (["--text_column_name=words"], "no column 'words'"),
    (["--label_column_name=guess"], "no column 'guess'"),
    (["--teacher_model_name_or_path=./nowhere"], "there is no folder ./nowhere"),
]


@pytest.mark.parametrize(("arguments", "named"), CONTRADICTIONS)
def test_what_cannot_work_is_told_in_one_sentence_before_anything_is_compiled_or_written(
    arguments, named, teacher, prompts, tmp_path, refused
):
    base = {
        "teacher_model_name_or_path": teacher, "train_dataset_name": prompts, "output_dir": tmp_path / "out"
    }  # fmt: skip
    flags = [f"--{name}={value}" for name, value in base.items()]
    assert named in refused(*flags, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_fine_tuning_cannot_weigh_a_teacher_it_has_not(teacher, prompts, tmp_path, refused):
    sentence = refused(
        f"--model={teacher}", f"--train_dataset_name={prompts}", f"--output_dir={tmp_path}", "--kl_weight=1"
    )
    assert "need a teacher: give teacher_model_name_or_path" in sentence


@pytest.mark.parametrize(
    ("name", "value", "teachers", "flags"),
    [
        ("vocab_size", 51865, 51864, []),
        ("num_mel_bins", 128, 80, []),
        ("d_model", 64, 32, ["--mse_weight=1"]),
    ],
)
def test_a_student_that_cannot_be_compared_with_its_teacher_is_refused(
    name, value, teachers, flags, teacher, prompts, tmp_path, refused
):
    """Neither has weights here: the configurations are enough to tell."""
    student = write_changed(teacher, tmp_path / "student", **{name: value})
    same = write_changed(teacher, tmp_path / "teacher")
    sentence = refused(
        f"--model={student}", f"--teacher_model_name_or_path={same}", f"--train_dataset_name={prompts}",
        f"--output_dir={tmp_path / 'out'}", *flags,
    )  # fmt: skip
    assert f"has {name} {value}, teacher {str(same)!r} {teachers}:" in sentence
    assert not (tmp_path / "out").exists()


def test_a_student_that_hears_more_at_once_than_its_teacher_is_refused(teacher, prompts, tmp_path, refused):
    student = write_changed(teacher, tmp_path / "student")
    short = write_changed(teacher, tmp_path / "teacher", max_source_positions=750)
    sentence = refused(
        f"--model={student}", f"--teacher_model_name_or_path={short}", f"--train_dataset_name={prompts}",
        f"--output_dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert "hears 30 s at a time and teacher" in sentence
    assert "only 15 s: distil a student of at most 750 max_source_positions" in sentence


def test_states_of_two_encoders_are_not_kept(teacher, prompts, tiny_en_dir, tmp_path, capsys):
    student = write_teacher(tmp_path / "student.en", tiny_en_dir, seed=1)
    flags = {
        "teacher_model_name_or_path": teacher, "model": student, "train_dataset_name": prompts,
        "max_steps": 1, "warmup_steps": 0, "cache_encoder_states": "true", "output_dir": tmp_path / "out",
    }  # fmt: skip
    assert main(["distil", *(f"--{name}={value}" for name, value in flags.items())]) == 2
    assert "the student's is not the teacher's" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_stays_as_it_is(teacher, prompts, tmp_path, refused):
    (tmp_path / "thesis.txt").write_text("years of work")
    sentence = refused(
        f"--teacher_model_name_or_path={teacher}", f"--train_dataset_name={prompts}",
        f"--output_dir={tmp_path}",
    )  # fmt: skip
    assert "is not empty" in sentence
    assert "resume_from_checkpoint" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
