"""The way from the command line to the loss is short: few functions, in few files."""

import sys
from pathlib import Path

import pytest

import flax_distil
from flax_distil.cli.main import main
from flax_distil.distillation import train_step
from tests.toys import write_prompts

PACKAGE = Path(flax_distil.__file__).parent


class ArrivedError(Exception):
    """The loss was called."""


def test_from_the_command_line_to_the_loss(teacher, prompts_dir, tmp_path, monkeypatch):
    way = [("distillation/loss.py", train_step.distillation_loss.__name__)]

    def arrive(*arguments):
        frame = sys._getframe(1)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(PACKAGE):
                way.insert(0, (str(path.relative_to(PACKAGE)), frame.f_code.co_name))
            frame = frame.f_back
        raise ArrivedError

    monkeypatch.setattr(train_step, "distillation_loss", arrive)
    flags = {
        "teacher_model_name_or_path": teacher, "train_dataset_name": write_prompts(tmp_path, prompts_dir),
        "student_decoder_layers": 1, "per_device_train_batch_size": 2, "max_steps": 2, "warmup_steps": 0,
        "output_dir": tmp_path / "run",
    }  # fmt: skip
    with pytest.raises(ArrivedError):
        main(["distil", *(f"--{name}={value}" for name, value in flags.items())])
    listed = "\n".join(f"{path}: {name}" for path, name in way)
    assert len(way) <= 9, listed
    assert len({path for path, _ in way}) <= 5, listed
