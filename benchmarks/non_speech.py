"""What a student writes where nobody speaks, trained without and with clips without speech.

    python -m benchmarks.non_speech --output /tmp/non_speech

Two students of two decoder layers are distilled from whisper-tiny.en on the bundled training prompts, alike
but for ``--non_speech_probability``. Teacher and students then transcribe the held-out prompts, and clips
without speech that no student has heard. Published checkpoints suppress ``<|endoftext|>`` as the first token,
so they always write something. The student with clips does not suppress it. So that all are compared on equal
terms, teacher and student without clips are free to write nothing as well (``-free``); with
``--as_published`` they are also evaluated as they are. What is there already is not done again.

All clips come from generators. ``--recordings`` names a folder of real recordings without speech, which are
cut into pieces of 30 s and transcribed too; the hold music of Debian's package asterisk-moh-opsound-wav
(CC BY-SA 3.0) is such a folder.
"""

import argparse
import csv
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import REPOSITORY, checkpoint_folder
from benchmarks.machine import limit_threads

PROMPTS = REPOSITORY / "examples" / "asterisk_prompts"


def train(output: Path, arguments: argparse.Namespace, probability: float) -> None:
    """Distil one student, unless it is there."""
    from flax_distil.core.nested import build
    from flax_distil.distillation.config import DistillConfig
    from flax_distil.distillation.job import run

    if (output / "config.json").is_file():
        return
    run(
        build(
            DistillConfig,
            teacher_model_name_or_path=str(checkpoint_folder("tiny.en")),
            model_name_or_path=arguments.student,
            student_decoder_layers=2 if arguments.student is None else None,
            train_dataset_name=str(PROMPTS),
            train_split_name="train",
            label_column_name="",  # the references
            max_train_samples=arguments.train_samples,
            per_device_train_batch_size=8,
            max_steps=arguments.steps,
            warmup_steps=arguments.steps // 10,
            learning_rate=3e-4,
            precision="full",
            cache_encoder_states=True,
            non_speech_probability=probability,
            non_speech_clips=256,
            timestamp_probability=0.0,
            export_dtype="float32",
            logging_steps=10,
            save_steps=10,
            resume_from_checkpoint="auto",
            output_dir=str(output),
        )
    )


def free_to_write_nothing(checkpoint: Path, output: Path) -> None:
    """Copy a checkpoint, with ``<|endoftext|>`` allowed as the first token."""
    output.mkdir(exist_ok=True)
    for path in checkpoint.iterdir():
        if path.is_file() and path.suffix in (".json", ".txt", ".safetensors"):
            shutil.copy2(path, output)
    settings = json.loads((output / "generation_config.json").read_text())
    kept = [token for token in settings["begin_suppress_tokens"] if token != settings["eos_token_id"]]
    settings["begin_suppress_tokens"] = kept
    (output / "generation_config.json").write_text(json.dumps(settings, indent=2))


def evaluate(output: Path, models: list[Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """Transcribe speech and clips without it with all models."""
    from flax_distil.core.nested import build
    from flax_distil.evaluation.config import EvalConfig
    from flax_distil.evaluation.job import run

    data_sets, splits = [str(PROMPTS)], ["validation"]
    if arguments.recordings is not None:
        data_sets.append(str(cut_recordings(arguments.recordings, arguments.output / "recordings")))
        splits.append("train")
    results: dict[str, Any] = run(
        build(
            EvalConfig,
            model_name_or_path="+".join(map(str, models)),
            dataset_name="+".join(data_sets),
            dataset_split_name="+".join(splits),
            max_samples=arguments.eval_samples,
            non_speech=True,
            non_speech_samples=arguments.clips,
            per_device_eval_batch_size=8,
            generation_max_length=48,
            output_dir=str(output),
        )
    )
    return results


def cut_recordings(source: Path, output: Path) -> Path:
    """Cut recordings into pieces of 30 s with empty texts, and return their folder."""
    from flax_distil.audio.constants import CHUNK_SAMPLES
    from flax_distil.audio.reading.decoding import decode_audio
    from flax_distil.audio.segmentation import flac_bytes

    output.mkdir(exist_ok=True)
    lines = []
    for path in sorted(source.iterdir()):
        samples_W = decode_audio(str(path))
        for number in range(max(1, len(samples_W) // CHUNK_SAMPLES)):
            name = f"{path.stem}-{number:02d}.flac"
            piece_W = samples_W[number * CHUNK_SAMPLES : (number + 1) * CHUNK_SAMPLES]
            (output / name).write_bytes(flac_bytes(piece_W))
            lines.append(json.dumps({"file_name": name, "text": ""}) + "\n")
    (output / "metadata.jsonl").write_text("".join(lines))
    return output


def report_recordings(predictions: Path) -> None:
    """Print how many of the recordings without speech have a text, without thresholds."""
    texts: dict[str, list[str]] = {}
    with predictions.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["dataset"] == "recordings":
                texts.setdefault(row["model"], []).append(row["prediction"].strip())
    for model, found in texts.items():
        share = 100 * sum(map(bool, found)) / len(found)
        print(f"{model:26} has text on {share:5.1f} % of {len(found)} recordings without speech")


def report(results: dict[str, Any]) -> None:
    """Print the table, and whether the student with clips meets what was asked for."""
    print(
        f"{'model':26} {'WER':>6} {'95 %':>15} {'thresholds':>11} {'text %':>7} {'words/h':>8} {'5-dup':>6}"
    )
    for name, entry in results["models"].items():
        total = entry["total"]["clean"]
        interval = "{:.1f} to {:.1f}".format(*total["wer_interval"])
        for thresholds, found in entry["non_speech"].items():
            print(
                f"{name:26} {total['wer']:6.2f} {interval:>15} {thresholds.removeprefix('thresholds_'):>11} "
                f"{found['with_text']:7.1f} {found['words_per_hour']:8.0f} {found['repeated_5grams']:6.2f}"
            )
    without, with_clips = (results["models"][name] for name in ("without-clips-free", "with-clips"))
    shares = [entry["non_speech"]["thresholds_off"]["with_text"] for entry in (without, with_clips)]
    low, high = without["total"]["clean"]["wer_interval"]
    ratio = shares[1] / shares[0] if shares[0] else math.nan
    is_within = low <= with_clips["total"]["clean"]["wer"] <= high
    print(f"\nclips with text, with over without, thresholds off: {ratio:.3f} (at most 0.25 was asked for)")
    print(f"WER of the student with clips within the interval of that without: {is_within}")


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train both students, and evaluate them and their teacher."""
    arguments.output.mkdir(parents=True, exist_ok=True)
    without, with_clips = (arguments.output / name for name in ("without-clips", "with-clips"))
    train(without, arguments, 0.0)
    train(with_clips, arguments, arguments.probability)
    teacher = checkpoint_folder("tiny.en")
    free = [arguments.output / f"{name}-free" for name in (teacher.name, without.name)]
    for checkpoint, copy in zip((teacher, without), free, strict=True):
        free_to_write_nothing(checkpoint, copy)
    published = [teacher, without] if arguments.as_published else []
    return evaluate(arguments.output / "report", [*published, *free, with_clips], arguments)


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of students and reports")
    parser.add_argument("--student", help="student to go on with; by default two layers of the teacher")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--train_samples", type=int, default=369)
    parser.add_argument("--probability", type=float, default=0.15)
    parser.add_argument("--eval_samples", type=int, default=80)
    parser.add_argument("--recordings", type=Path, help="folder of recordings without speech")
    parser.add_argument("--clips", type=int, default=80)
    parser.add_argument("--as_published", action="store_true", help="also with their own suppressed tokens")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args(given)


if __name__ == "__main__":
    options = parse_arguments()
    limit_threads(options.threads)
    report(compare(options))
    report_recordings(options.output / "report" / "predictions.csv")
