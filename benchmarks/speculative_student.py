"""The student that drafts in ``benchmarks.speculative``: two decoder layers of whisper-base, distilled.

    python -m benchmarks.speculative_student

Trained on the bundled training prompts, and kept in ``.cache/students``.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

from benchmarks.checkpoints import REPOSITORY, checkpoint_folder
from benchmarks.machine import limit_threads

STUDENT = REPOSITORY / ".cache" / "students" / "whisper-base-2"
WORK = STUDENT.with_name("whisper-base-2-training")


def student_folder(max_steps: int = 150) -> Path:
    """Return the folder of the student, which is trained if it is not there."""
    if not (STUDENT / "config.json").is_file():
        seconds = train(max_steps)
        print(f"the student took {seconds:.0f} s to train")
    return STUDENT


def train(max_steps: int) -> float:
    """Train the student, keep its checkpoint alone, and return the seconds."""
    from flax_distil.core.nested import build
    from flax_distil.distillation.config import DistillConfig
    from flax_distil.distillation.job import run as run_distillation

    start = time.perf_counter()
    run_distillation(
        build(
            DistillConfig,
            teacher_model_name_or_path=str(checkpoint_folder("base")),
            student_decoder_layers=2,
            train_dataset_name=str(REPOSITORY / "examples" / "asterisk_prompts"),
            train_split_name="train",
            label_column_name="",  # the references
            language="en",
            # A draft is accepted where the two distributions overlap, which this divergence alone bounds.
            ce_weight=0.0,
            temperature=1.0,
            per_device_train_batch_size=16,
            max_steps=max_steps,
            warmup_steps=max_steps // 10,
            learning_rate=5e-4,
            precision="full",
            cache_encoder_states=True,
            logging_steps=5,
            save_steps=max_steps,
            export_dtype="float32",
            output_dir=str(WORK),
            overwrite_output_dir=WORK.is_dir(),
        )
    )
    seconds = time.perf_counter() - start
    STUDENT.mkdir(parents=True, exist_ok=True)
    for path in WORK.iterdir():
        if path.is_file() and path.name != "metrics.jsonl":
            shutil.copy2(path, STUDENT)
    (STUDENT / "training.json").write_text(json.dumps({"steps": max_steps, "seconds": round(seconds)}) + "\n")
    shutil.rmtree(WORK)
    return seconds


if __name__ == "__main__":
    limit_threads(2)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--max_steps", type=int, default=150)
    print(student_folder(parser.parse_args().max_steps))
