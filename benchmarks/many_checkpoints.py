"""Ten checkpoints of one student in one run of eval, against ten runs: whole processes, and the same texts.

    python -m benchmarks.many_checkpoints --clips 40 --threads 2

The student has the frozen encoder of its teacher and two decoder layers. Its checkpoints differ by
noise on the weights of the decoder. Programs are compiled once before anything is timed, and read from the
cache by every process.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import REPOSITORY
from benchmarks.machine import limit_threads, report, run_script

WANTED_RATIO = 0.35


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    limit_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_checkpoints(student_folder(args.student), folder / "runs", count=args.checkpoints)
        names = [f"checkpoint-{100 * number}" for number in range(1, args.checkpoints + 1)]
        evaluate(args, folder, "compile", f"runs/{names[0]}", clips=args.batch)
        together = evaluate(args, folder, "together", "runs/checkpoint-*", clips=args.clips)
        alone = [evaluate(args, folder, name, f"runs/{name}", clips=args.clips) for name in names]
        same = all(texts(folder / "together", name) == texts(folder / name, name) for name in names)
        different = len({tuple(texts(folder / "together", name)) for name in names})
    results = {
        "benchmark": "many_checkpoints", "arguments": vars(args), "together": together, "alone": alone,
        "ratio": together / sum(alone), "same_texts": same, "different_checkpoints": different,
    }  # fmt: skip
    print(f"one run of {len(names)} checkpoints {together:.1f} s, {len(names)} runs {sum(alone):.1f} s")
    print(f"ratio {results['ratio']:.2f} (wanted: at most {WANTED_RATIO}), texts equal: {same}")
    report(results, args.json)


def student_folder(name: str | None) -> Path:
    """Return the folder of the student: the given one, or that of the tests, which is trained if needed."""
    if name is not None:
        return Path(name)
    from tests.exporting.students import STUDENTS, ensure_students

    ensure_students(["base"])
    return STUDENTS / "whisper-base-2"


def make_checkpoints(student: Path, runs: Path, *, count: int) -> None:
    """Write checkpoints with the encoder of a student and noise on its decoder."""
    import jax
    import numpy as np

    from flax_distil.checkpoints.checkpoint import load_checkpoint
    from flax_distil.checkpoints.export import export_checkpoint

    source = load_checkpoint(student)
    for number in range(1, count + 1):
        random = np.random.default_rng(number)

        def changed(leaf: Any, random: np.random.Generator = random) -> Any:
            return leaf * (1 + 0.02 * random.standard_normal(leaf.shape, dtype=np.float32))

        params = {**source.params, "decoder": jax.tree.map(changed, source.params["decoder"])}
        folder = runs / f"checkpoint-{100 * number}"
        export_checkpoint(params, source.config, folder, files=source.files, dtype="float32")


def evaluate(args: argparse.Namespace, folder: Path, name: str, models: str, *, clips: int) -> float:
    """Evaluate checkpoints in a process of its own, and return its seconds."""
    flags = {
        "model_name_or_path": folder / models, "language": "en",
        "dataset_name": REPOSITORY / "examples" / "asterisk_prompts", "dataset_split_name": "validation",
        "max_samples": clips, "per_device_eval_batch_size": args.batch, "output_dir": folder / name,
    }  # fmt: skip
    start = time.perf_counter()
    run_script("run_eval.py", flags, programs=folder / "programs", stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    print(f"  {name:16}{seconds:8.1f} s", flush=True)
    return seconds


def texts(folder: Path, model: str) -> list[str]:
    """Return what a checkpoint wrote, in the order of the recordings."""
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return [row["prediction"] for row in csv.DictReader(file) if row["model"] == model]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", help="folder of the student; by default the two-layer student of base")
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="file for the figures")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
