"""Restarting a distillation: seconds from the start of the process to the end of its first step.

    python -m benchmarks.restart --model tiny.en --threads 2

A run starts with an empty cache of compiled programs, and is then resumed with what it left there. Both are
processes of their own, and both times are those of their goodput.json.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import REPOSITORY, checkpoint_folder
from benchmarks.machine import limit_threads, report, run_script

WANTED_RATIO = 0.35


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    limit_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        first, resumed = (attempt(args, folder, max_steps=steps) for steps in (2, 4))
    results = {"benchmark": "restart", "arguments": vars(args), "first": first, "resumed": resumed}
    results["ratio"] = resumed["seconds_to_first_step"] / first["seconds_to_first_step"]
    for name, found in (("first start", first), ("resumed", resumed)):
        causes = ", ".join(
            f"{cause} {seconds:.1f} s" for cause, seconds in found["seconds"].items() if seconds
        )
        print(f"{name}: first step after {found['seconds_to_first_step']:.1f} s ({causes})")
    print(f"ratio {results['ratio']:.2f} (wanted: at most {WANTED_RATIO})")
    report(results, args.json)


def attempt(args: argparse.Namespace, folder: Path, *, max_steps: int) -> dict[str, Any]:
    """Start or resume the run, and return what goodput.json says of this attempt."""
    flags = {
        "teacher_model_name_or_path": checkpoint_folder(args.model), "student_decoder_layers": 2,
        "train_dataset_name": REPOSITORY / "examples" / "asterisk_prompts", "train_split_name": "validation",
        "label_column_name": "", "per_device_train_batch_size": args.batch, "precision": args.precision,
        "lr_scheduler_type": "constant", "warmup_steps": 0, "max_steps": max_steps, "save_steps": 1000,
        "resume_from_checkpoint": "auto", "output_dir": folder / "run",
    }  # fmt: skip
    run_script("run_distillation.py", flags, programs=folder / "programs")
    found: dict[str, Any] = json.loads((folder / "run" / "goodput.json").read_text())["attempts"][-1]
    return found


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="tiny.en", help="the teacher: a folder, or a name as the tests have it"
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--precision", default="full")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="file for the figures")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
