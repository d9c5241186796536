"""Students of two decoder layers that were trained for a few minutes, so that their texts are like speech.

A student that was only made, and not trained, says the same words for ever, and programs that end such a
loop differently would differ in all of their texts. They are trained on the labels of the bundled prompts
alone, since a teacher would take twice the time.

    python -m tests.exporting.students [tiny.en] [base]
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.real_checkpoints import CACHE, CHECKPOINTS, ensure_checkpoints

STUDENTS = CACHE / "students"
PROMPTS = Path(__file__).parent.parent.parent / "examples" / "asterisk_prompts"
STEPS = {"tiny.en": 250, "base": 150}
"""Number of updates of each student, of eight prompts."""

SAMPLES = {"tiny.en": 369, "base": 240}
"""Number of prompts of each; each is encoded once, which takes longer than a step."""


def ensure_students(names: Iterable[str] = tuple(STEPS)) -> None:
    """Train the students that are not there yet: minutes for each."""
    for name in names:
        build_student(name, STUDENTS / f"whisper-{name}-2")


def build_student(name: str, destination: Path) -> Path:
    """Train one student on the bundled prompts, unless it is there, and return its folder."""
    if (destination / "config.json").is_file():
        return destination
    from flax_distil.checkpoints.config import InitStudentConfig
    from flax_distil.checkpoints.job import run_init_student
    from flax_distil.core.nested import build
    from flax_distil.distillation.config import DistillConfig
    from flax_distil.distillation.job import run
    from flax_distil.exporting.config import ExportConfig
    from flax_distil.exporting.job import run as export

    ensure_checkpoints((name,))
    destination.parent.mkdir(parents=True, exist_ok=True)
    run_folder = destination.with_name(
        f"{destination.name}.run"
    )  # the next call goes on where one was stopped
    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        copied = destination.with_name(f"{destination.name}.init")
        if not (copied / "config.json").is_file():
            teacher = {"teacher_model_name_or_path": str(CHECKPOINTS / f"whisper-{name}")}
            run_init_student(build(InitStudentConfig, decoder_layers=2, output_dir=str(copied), **teacher))
        config = build(
            DistillConfig,
            model_name_or_path=str(copied),
            train_dataset_name=str(PROMPTS),
            train_split_name="train",
            label_column_name="text",
            max_train_samples=SAMPLES[name],
            language=None if name.endswith(".en") else "en",
            per_device_train_batch_size=8,
            max_steps=STEPS[name],
            warmup_steps=10,
            learning_rate=3e-4,
            precision="full",
            cache_encoder_states=True,
            timestamp_probability=0.0,
            kl_weight=0.0,
            save_steps=10,
            export_dtype="float32",
            resume_from_checkpoint="auto",
            output_dir=str(run_folder),
        )
        run(config)
        # The run's folder holds its records too; an export holds the student alone.
        values = {"model_name_or_path": str(run_folder), "dtype": "float32"}
        export(build(ExportConfig, output_dir=f"{scratch}/student", **values))
        try:
            os.replace(f"{scratch}/student", destination)
        except OSError:  # another test run was faster
            if not destination.is_dir():
                raise
    for folder in (run_folder, copied):
        shutil.rmtree(folder, ignore_errors=True)
    return destination


if __name__ == "__main__":
    ensure_students(sys.argv[1:] or tuple(STEPS))
