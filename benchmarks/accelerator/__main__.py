"""Check results and speed on the accelerator of this machine, in at most eight minutes.

    python scripts/accelerator_check.py
    python -m benchmarks.accelerator --model FOLDER --json results.json

Each part runs in a process of its own: one that fails or takes too long ends none of the others, and each
has the whole memory of the device. Nothing is read from the net. ``--size toy`` shows on any machine that
the check itself works; its figures mean nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.accelerator.settings import SIZES
from benchmarks.accelerator.table import markdown

RESULTS = Path(__file__).resolve().parent.parent / "results"
PARTS = {
    "machine": 60,
    "parity": 120,
    "attention": 60,
    "products": 60,
    "step": 150,
    "decode": 120,
    "peer": 150,
}
"""The parts in their order, and the most seconds that each may take."""

_TOTAL_SECONDS = 470


def main(arguments: list[str] | None = None) -> int:
    """Run all parts, write the results, and return 0 if every result that can be wrong is right."""
    args = parse(arguments)
    if args.part:
        Path(args.part_output).write_text(json.dumps(run_part(args)))
        return 0
    start = time.monotonic()
    results: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "size": args.size}
    for part in args.parts or PARTS:
        left = args.total_seconds - (time.monotonic() - start)
        results[part] = (
            in_a_process(args, part, min(PARTS[part], left)) if left > 5 else {"skipped": "no time left"}
        )
        print(f"{part} ({time.monotonic() - start:.0f} s): {json.dumps(results[part])}", flush=True)
    results["seconds"] = round(time.monotonic() - start, 1)
    name = str(results.get("machine", {}).get("device", "unknown")).lower().replace(" ", "-")
    path = Path(args.json) if args.json else RESULTS / f"accelerator-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    table = markdown(results)
    path.with_suffix(".md").write_text(table)
    print(f"\n{table}\nwritten to {path} and {path.with_suffix('.md')}")
    return 0 if is_right(results) else 1


def is_right(results: dict[str, Any]) -> bool:
    """Return whether parity holds and nothing was compiled again."""
    parity = results.get("parity", {})
    compared = [parity.get(dtype, {}).get("passed") for dtype in ("float32", "bfloat16")]
    repeated = [results.get("step", {}).get("recompilations")]
    repeated += [
        part.get("recompilations") for part in results.get("decode", {}).values() if isinstance(part, dict)
    ]
    return all(compared) and not any(repeated)


def in_a_process(args: argparse.Namespace, part: str, seconds: float) -> dict[str, Any]:
    """Run one part; a failure is part of its result."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "result.json"
        command = [
            sys.executable,
            "-m",
            "benchmarks.accelerator",
            "--part",
            part,
            "--part_output",
            str(output),
        ]
        command += ["--size", args.size, "--model", args.model]
        try:
            done = subprocess.run(
                command, cwd=RESULTS.parent.parent, timeout=seconds, capture_output=True, text=True,
                env=os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"failed": f"took longer than {seconds:.0f} s"}
        if done.returncode or not output.exists():
            return {"failed": " | ".join(done.stderr.strip().splitlines()[-6:])[-1500:]}
        return json.loads(output.read_text())


def run_part(args: argparse.Namespace) -> dict[str, Any]:
    """Run one part in this process."""
    size = SIZES[args.size]
    if args.part == "peer":
        from benchmarks.accelerator import peer

        return peer.check(size)
    from benchmarks.checkpoints import checkpoint_folder

    if args.part == "machine":
        from benchmarks.accelerator.machine import describe

        return describe()
    if args.part == "parity":
        from benchmarks.accelerator import parity

        return parity.check(checkpoint_folder(args.model))
    if args.part == "attention":
        from benchmarks.accelerator import attention

        return attention.check(size)
    if args.part == "products":
        from benchmarks.accelerator import products

        return products.check(size)
    if args.part == "step":
        from benchmarks.accelerator import step

        return step.check(size)
    from benchmarks.accelerator import decode

    return decode.check(size, checkpoint_folder(args.model))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="tiny.en", help="checkpoint of the parity check, with its golden arrays"
    )
    parser.add_argument("--size", default="large-v3", choices=sorted(SIZES))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="run these alone")
    parser.add_argument(
        "--total_seconds",
        type=float,
        default=_TOTAL_SECONDS,
        help="parts that would begin later are left out",
    )
    parser.add_argument("--json", help="write the results here, and the table beside them")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--part_output", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
