"""Students of two decoder layers that were trained for a few minutes, so that their texts are like speech.

A student that was only made, and not trained, says the same words for ever, and programs that end such a
loop differently would differ in all of their texts. They are distilled on the bundled prompts, ten seconds of
them at a time, since every window costs as much as one of 30 s.

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
NAMES = ("tiny.en", "base")
STEPS = 120
"""Number of updates, of eight windows."""


def ensure_students(names: Iterable[str] = NAMES) -> None:
    """Train the students that are not there yet: minutes for each."""
    for name in names:
        build_student(name, STUDENTS / f"whisper-{name}-2")


def build_student(name: str, destination: Path) -> Path:
    """Train one student on the bundled prompts, unless it is there, and return its folder."""
    if (destination / "config.json").is_file():
        return destination
    from flax_distil import (
        DistillConfig,
        ExportConfig,
        InitStudentConfig,
        PseudoLabelConfig,
        build,
        distill,
        export,
        init_student,
        pseudo_label,
    )

    ensure_checkpoints((name,))
    destination.parent.mkdir(parents=True, exist_ok=True)
    run_folder = destination.with_name(
        f"{destination.name}.run"
    )  # the next call goes on where one was stopped
    teacher, language = str(CHECKPOINTS / f"whisper-{name}"), None if name.endswith(".en") else "en"
    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        copied = destination.with_name(f"{destination.name}.init")
        if not (copied / "config.json").is_file():
            layers = {"teacher_model_name_or_path": teacher, "decoder_layers": 2}
            init_student(build(InitStudentConfig, output_dir=str(copied), **layers))
        states = str(run_folder / "encoder_states")
        labels = build(
            PseudoLabelConfig,
            model_name_or_path=teacher,
            dataset_name=str(PROMPTS),
            dataset_split_name="train",
            text_column_name="text",
            language=language,
            concatenate_audio=True,
            max_concatenated_seconds=10.0,
            generation_max_length=128,
            encoder_cache_dir=states,
            output_dir=str(run_folder / "labelled"),
        )
        pseudo_label(labels)
        config = build(
            DistillConfig,
            model_name_or_path=str(copied),
            teacher_model_name_or_path=teacher,
            train_dataset_name=str(run_folder / "labelled"),
            wer_threshold=20.0,
            language=language,
            per_device_train_batch_size=8,
            max_steps=STEPS,
            warmup_steps=10,
            learning_rate=2.5e-4,
            lr_scheduler_type="cosine",
            precision="full",
            cache_encoder_states=True,
            encoder_cache_dir=states,
            timestamp_probability=0.0,
            save_steps=10,
            export_dtype="float32",
            resume_from_checkpoint="auto",
            output_dir=str(run_folder / "student"),
        )
        distill(config)
        # The run's folder holds its records too; an export holds the student alone.
        values = {"model_name_or_path": str(run_folder / "student"), "dtype": "float32"}
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
    ensure_students(sys.argv[1:] or NAMES)
