"""Students of two decoder layers that were distilled for a few minutes, so that they say what was said.

A student that was only made, and not trained, says the same words for ever, and programs that end such a
loop differently would differ in all of their texts.

    python -m tests.exporting.students [tiny.en] [base]
"""

import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.real_checkpoints import CACHE, CHECKPOINTS, ensure_checkpoints

STUDENTS = CACHE / "students"
PROMPTS = Path(__file__).parent.parent.parent / "examples" / "asterisk_prompts"
STEPS = {"tiny.en": 140, "base": 120}


def ensure_students(names: Iterable[str] = tuple(STEPS)) -> None:
    """Distill the students that are not there yet: minutes for each."""
    for name in names:
        build_student(name, STUDENTS / f"whisper-{name}-2")


def build_student(name: str, destination: Path) -> Path:
    """Distill one student on the bundled prompts, unless it is there, and return its folder."""
    if (destination / "config.json").is_file():
        return destination
    from flax_distil.core.nested import build
    from flax_distil.distillation.config import DistillConfig
    from flax_distil.distillation.job import run
    from flax_distil.exporting.config import ExportConfig
    from flax_distil.exporting.job import run as export

    ensure_checkpoints((name,))
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        config = build(
            DistillConfig,
            teacher_model_name_or_path=str(CHECKPOINTS / f"whisper-{name}"),
            student_decoder_layers=2,
            train_dataset_name=str(PROMPTS),
            train_split_name="train",
            label_column_name="text",
            language=None if name.endswith(".en") else "en",
            per_device_train_batch_size=8,
            max_steps=STEPS[name],
            warmup_steps=10,
            learning_rate=3e-4,
            precision="full",
            cache_encoder_states=True,
            timestamp_probability=0.0,
            save_steps=10**6,
            export_dtype="float32",
            output_dir=f"{scratch}/run",
        )
        run(config)
        # The run's folder holds its records too; an export holds the student alone.
        values = {"model_name_or_path": f"{scratch}/run", "dtype": "float32"}
        export(build(ExportConfig, output_dir=f"{scratch}/student", **values))
        try:
            os.replace(f"{scratch}/student", destination)
        except OSError:  # another test run was faster
            if not destination.is_dir():
                raise
    return destination


if __name__ == "__main__":
    ensure_students(sys.argv[1:] or tuple(STEPS))
