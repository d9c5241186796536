"""A disk that is full ends a command with one sentence; with room the same command goes on."""

import json
import logging
import shutil

import pytest

from flax_distil.cli.main import main
from tests.toys import write_prompts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prompts(prompts_dir, tmp_path_factory):
    return write_prompts(tmp_path_factory.mktemp("prompts"), prompts_dir)


def refused(arguments, limited_files, size, capsys):
    """Run a command while no file can grow beyond so many bytes, and return what it says."""
    with limited_files(size):
        assert main([str(argument) for argument in arguments]) == 2
    shown = capsys.readouterr().err
    errors = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, shown
    assert "Traceback" not in shown
    assert "File too large" in errors[0] or "make room" in errors[0]
    return errors[0]


def test_transcripts_that_are_finished_stay(teacher, prompts_dir, tmp_path, limited_files, capsys):
    files = [prompts_dir / "validation" / f"{name}.ogg" for name in ("conf-full", "agent-user")]
    flags = ["--model", teacher, "--output_dir", tmp_path, "--generation_max_length=8", "--skip_existing"]
    assert main(["transcribe", str(files[0]), *map(str, flags)]) == 0
    before = (tmp_path / "conf-full.json").stat().st_mtime_ns
    sentence = refused(["transcribe", *files, *flags], limited_files, 300, capsys)
    assert "run the same command again" in sentence
    assert {path.name for path in tmp_path.iterdir()} == {"conf-full.json", ".transcripts.jsonl"}
    assert main(["transcribe", *map(str, files), *map(str, flags)]) == 0
    assert (tmp_path / "conf-full.json").stat().st_mtime_ns == before
    assert (tmp_path / "agent-user.json").is_file()


def test_an_inspection_leaves_no_half_report(teacher, prompts, tmp_path, limited_files, capsys):
    arguments = [
        "data", "inspect", "--train_dataset_name", prompts, "--model_name_or_path", teacher,
        "--output_dir", tmp_path / "out", "--num_shown_samples=1",
    ]  # fmt: skip
    refused(arguments, limited_files, 500, capsys)
    assert not (tmp_path / "out").exists()


def test_a_training_checkpoint_that_does_not_fit_is_one_sentence(
    teacher, prompts, tmp_path, limited_files, capsys
):
    out = tmp_path / "student"
    arguments = [
        "distil", "--teacher_model_name_or_path", teacher, "--train_dataset_name", prompts,
        "--max_steps=4", "--save_steps=2", "--warmup_steps=1", "--per_device_train_batch_size=2",
        "--precision=full", "--logging_steps=1", "--output_dir", out,
    ]  # fmt: skip
    refused(arguments, limited_files, 30_000, capsys)
    assert main([*map(str, arguments), "--overwrite_output_dir"]) == 0
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 4


def test_training_goes_on_while_the_disk_is_full_and_saves_when_there_is_room(
    teacher, prompts, small_disk, capsys
):
    out, filler = small_disk / "student", small_disk / "filler"
    arguments = [
        "distil", "--teacher_model_name_or_path", teacher, "--train_dataset_name", prompts,
        "--max_steps=8", "--save_steps=2", "--warmup_steps=1", "--per_device_train_batch_size=2",
        "--precision=full", "--logging_steps=1", "--output_dir", out,
    ]  # fmt: skip
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 2**21))
    warnings = []

    class MakeRoom(logging.Handler):
        def emit(self, record):
            if "could not be saved" in record.getMessage():
                warnings.append(record.getMessage())
                if len(warnings) == 2:
                    filler.unlink()

    handler = MakeRoom()
    logging.getLogger("flax_distil").addHandler(handler)
    try:
        assert main(list(map(str, arguments))) == 0
    finally:
        logging.getLogger("flax_distil").removeHandler(handler)
    assert len(warnings) == 2
    assert all("No space left on device" in warning and "\n" not in warning for warning in warnings)
    assert "Traceback" not in capsys.readouterr().err
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"checkpoint_6", "checkpoint_8"}
    assert (out / "model.safetensors").is_file()
    assert main([*map(str, arguments), "--resume_from_checkpoint=auto"]) == 0
