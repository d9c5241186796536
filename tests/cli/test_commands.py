"""Commands as a user runs them: real weights, real prompts, exit codes and messages."""

import json
import subprocess
import sys

import numpy as np
import pytest

from flax_distil.cli.main import main
from tests.checkpoints.hub_server import TOKEN

pytestmark = pytest.mark.integration


def test_help_lists_the_commands_without_importing_jax():
    script = (
        "import sys; from flax_distil.cli.main import main; main(['--help']); sys.exit('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pseudo-label" in done.stdout


def test_the_help_of_every_command_loads_neither_jax_nor_data_sets():
    script = (
        "import sys; from flax_distil.cli.main import COMMANDS, main\n"
        "for command in COMMANDS: main([*command.split(), '--help'])\n"
        "print(sorted({'jax', 'datasets', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_is_refused(capsys):
    assert main(["distill"]) == 2
    assert "unknown command 'distill'" in capsys.readouterr().err


def test_a_command_of_two_words_lists_what_it_may_be(capsys):
    assert main(["data"]) == 2
    assert "data inspect  show training data before training: hours" in capsys.readouterr().out
    assert main(["data", "--help"]) == 0
    assert main(["data", "inspekt"]) == 2
    message = capsys.readouterr().err
    assert message == "error: unknown command 'data inspekt': expected one of data inspect\n"


def test_transcribe_writes_what_was_said(tiny_en_dir, prompts_dir, tmp_path):
    file = prompts_dir / "validation" / "conf-full.ogg"
    assert main(["transcribe", str(file), "--model", str(tiny_en_dir), "--output_dir", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "conf-full.json").read_text())
    assert document["text"] == "That conference is full."
    assert len(document["tokens"]) > 0
    assert -1 < document["avg_logprob"] < 0
    assert 0 <= document["no_speech_prob"] < 0.5


@pytest.fixture(scope="module")
def labeled(tiny_en_dir, prompts_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels") / "labelled"
    flags = {
        "model_name_or_path": tiny_en_dir, "dataset_name": prompts_dir, "dataset_split_name": "train",
        "text_column_name": "text", "max_samples": 4, "per_device_eval_batch_size": 4, "output_dir": folder,
        "generation_max_length": 64,
    }  # fmt: skip
    assert main(["pseudo-label", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    return folder


def test_pseudo_labels_carry_confidences_and_wer(labeled):
    import datasets

    rows = datasets.load_dataset(str(labeled), split="train", cache_dir=str(labeled.parent))
    assert len(rows) == 4
    wanted = {"whisper_transcript", "avg_logprob", "no_speech_prob", "compression_ratio", "duration", "wer"}
    assert wanted <= set(rows.column_names)
    assert np.mean(rows["wer"]) < 30


@pytest.fixture(scope="module")
def distilled(labeled, tiny_en_dir, prompts_dir, tmp_path_factory):
    """A run of four steps: its arguments and its folder."""
    out = tmp_path_factory.mktemp("run") / "student"
    flags = {
        "teacher_model_name_or_path": tiny_en_dir, "train_dataset_name": labeled, "max_steps": 4,
        "warmup_steps": 1, "per_device_train_batch_size": 2, "precision": "full", "logging_steps": 2,
        "cache_encoder_states": "true", "output_dir": out, "eval_dataset_name": prompts_dir,
        "eval_split_name": "validation", "max_eval_samples": 2, "per_device_eval_batch_size": 2,
        "generation_max_length": 16, "generation_num_beams": 2, "return_timestamps": "true", "save_steps": 2,
    }  # fmt: skip
    arguments = ["distil", *(f"--{name}={value}" for name, value in flags.items())]
    assert main(arguments) == 0
    return arguments, out


def read_lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_distil_trains_on_pseudo_labels_and_exports(distilled):
    _, out = distilled
    lines = read_lines(out)
    assert [line["step"] for line in lines if "loss" in line] == [2, 4]
    assert {"ce_loss", "kl_loss", "learning_rate", "samples_per_second"} <= set(lines[0])
    assert lines[-1]["eval_wer"] >= 0
    assert json.loads((out / "config.json").read_text())["decoder_layers"] == 2
    assert (out / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_run_is_repeated_only_on_request_and_resumes_as_if_it_had_not_stopped(distilled, capsys):
    arguments, out = distilled
    assert main(arguments) == 2
    assert "or set overwrite_output_dir or resume_from_checkpoint" in capsys.readouterr().err
    first = {line["step"]: line["loss"] for line in read_lines(out) if "loss" in line}
    assert main([*arguments, "--resume_from_checkpoint=2"]) == 0
    resumed = {line["step"]: line["loss"] for line in read_lines(out) if "loss" in line}
    assert resumed == pytest.approx(first, rel=1e-5)


# huggingface_hub's own call of httpx, in the upload without Xet.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_failed_upload_keeps_the_run_and_exits_with_1(distilled, hub, monkeypatch, caplog):
    arguments, out = distilled
    arguments = [*arguments, "--resume_from_checkpoint=latest", "--push_to_hub", "--hub_model_id=me/student"]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.refuse_commits = True
    assert main(arguments) == 1
    (error,) = (record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert f"the export is safe in {out}, to be uploaded with: hf upload me/student" in error
    assert "\n" not in error
    assert (out / "model.safetensors").is_file()
    assert (out / "checkpoints" / "checkpoint_4").is_dir()
    hub.refuse_commits = False
    assert main(arguments) == 0
    sent = hub.commit("me/student", "main").files
    private = {"run.json", "samples.json", "report.html"}
    assert sent.keys() == {path.name for path in out.iterdir() if path.is_file()} - private


def test_init_student_and_export_write_folders(tiny_en_dir, tmp_path):
    student, copy = tmp_path / "student", tmp_path / "copy"
    teacher = f"--teacher_model_name_or_path={tiny_en_dir}"
    assert main(["init-student", teacher, "--decoder_layers=1", f"--output_dir={student}"]) == 0
    assert json.loads((student / "config.json").read_text())["decoder_layers"] == 1
    assert main(["export", f"--model_name_or_path={student}", f"--output_dir={copy}"]) == 0
    assert (copy / "model.safetensors").stat().st_size < (student / "model.safetensors").stat().st_size


BAD_INPUT = [
    (["eval", "--model_name_or_path={model}", "--dataset_name=./nowhere"], "nowhere"),
    (["eval", "--model_name_or_path={model}", "--dataset_name={prompts}", "--dataset_split_name=validation",
      "--text_column_name=words"], "'words'"),
    (["eval", "--model_name_or_path=./nowhere", "--dataset_name={prompts}",
      "--dataset_split_name=validation"], "nowhere"),
    (["transcribe", "{prompts}/LICENSE", "--model={model}"], "LICENSE"),
    (["transcribe", "{prompts}/validation/conf-full.ogg", "--model={model}",
      "--language=klingon"], "klingon"),
    (["distil", "--train_dataset_name={prompts}", "--output_dir={out}"], "teacher_model_name_or_path"),
    (["distil", "--teacher_model_name_or_path={model}", "--train_dataset_name={prompts}",
      "--output_dir={out}",
      "--cache_encoder_states", "--freeze_encoder=false"], "cache_encoder_states"),
    (["distil", "--teacher_model_name_or_path={model}", "--train_dataset_name={prompts}",
      "--output_dir={out}",
      "--precision=half"], "'half'"),
    (["init-student", "--teacher_model_name_or_path={model}", "--decoder_layers=9",
      "--output_dir={out}"], "9"),
    (["eval", "--nonsense=1"], "nonsense"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "named"), BAD_INPUT)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments, named, tiny_en_dir, prompts_dir, tmp_path, capsys
):
    out = tmp_path / "out"
    filled = [argument.format(model=tiny_en_dir, prompts=prompts_dir, out=out) for argument in arguments]
    assert main(filled) == 2
    message = capsys.readouterr().err
    assert named in message
    assert "Traceback" not in message
    assert not out.exists()


def test_mode_short_refuses_audio_over_30_seconds(teacher, tmp_path, capsys):
    import soundfile

    file = tmp_path / "long.wav"
    soundfile.write(file, np.zeros(16000 * 31, np.float32), 16000)
    assert main(["transcribe", str(file), f"--model={teacher}", "--mode=short"]) == 2
    assert "lasts 31.0 s, and mode short takes at most 30 s" in capsys.readouterr().err


def test_overwriting_never_removes_a_folder_that_is_not_an_output(tiny_en_dir, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    source = f"--model_name_or_path={tiny_en_dir}"
    assert main(["export", source, f"--output_dir={tmp_path}", "--overwrite_output_dir"]) == 2
    assert "not written by" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_overwriting_a_run_never_removes_a_folder_that_is_not_an_output(tiny_en_dir, tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine").write_text("years of work")
    flags = [
        f"--teacher_model_name_or_path={tiny_en_dir}",
        "--train_dataset_name=d",
        "--overwrite_output_dir",
    ]
    assert main(["distil", *flags, f"--output_dir={tmp_path}"]) == 2
    assert "not written by" in capsys.readouterr().err
    assert (tmp_path / "checkpoints" / "mine").is_file()
