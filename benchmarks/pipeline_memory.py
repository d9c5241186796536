"""Memory of a process that reads many samples: it must stay flat.

    python -m benchmarks.pipeline_memory --samples 20000

Short recordings (faint noise of half a second to a second, in several epochs) go through the training
pipeline; after a warm-up of a fifth, resident memory is noted at regular distances and a line fitted.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe, limit_threads, report
from benchmarks.memory import give_back_freed_pages, status_mb

NOTES = 160
"""Times that memory is noted: many, since the window of a stream fills and empties between."""

SHOWN = 8
"""Every so-many-th note is printed."""

WANTED_MB = 1.0
"""Growth per 1000 samples that still counts as flat: less than one batch."""

Pipeline = Callable[[list[Path], argparse.Namespace], Iterator[dict[str, Any]]]
"""Files to endless batches."""


def training_batches(files: list[Path], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from benchmarks.data_pipeline import training_source
    from flax_distil.data.training.pipeline import TrainingPipeline
    from flax_distil.data.training.pipeline_config import PipelineConfig
    from flax_distil.data.training.training_sources import TrainingData

    source = training_source(args, files, streaming=args.source == "stream")
    config = PipelineConfig(batch_size=args.batch, num_threads=args.threads)
    pipeline = TrainingPipeline(TrainingData(sources=[source]), config, seed=0)
    try:
        yield from pipeline
    finally:
        pipeline.close()


def measure(pipeline: Pipeline, files: list[Path], args: argparse.Namespace) -> list[dict[str, float]]:
    """Return samples read, seconds and resident MB at regular distances behind the warm-up."""
    batches = pipeline(files, args)
    warm_up, step = args.samples // 5, args.samples * 4 // 5 // NOTES
    notes: list[dict[str, float]] = []
    read, start = 0, time.perf_counter()
    for batch in batches:
        read += len(batch.ids)
        if read >= warm_up + step * len(notes):
            give_back_freed_pages()
            seconds = time.perf_counter() - start
            notes.append({"samples": read, "seconds": seconds, "resident_mb": status_mb("VmRSS")})
        if read >= args.samples:
            break
    batches.close()  # type: ignore[attr-defined]
    return notes


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    limit_threads(args.threads)
    from benchmarks.recordings import short_noise

    results: dict[str, Any] = {
        "benchmark": "memory of the host pipeline", "machine": describe(args.threads),
        "arguments": vars(args),
    }  # fmt: skip
    print(json.dumps(results["machine"]))
    with tempfile.TemporaryDirectory() as folder:
        files = short_noise(args.rows, 8, Path(folder))
        notes = measure(training_batches, files, args)
    slope = float(
        np.polyfit([note["samples"] for note in notes], [note["resident_mb"] for note in notes], 1)[0]
    )
    results |= {"notes": notes, "mb_per_1000_samples": slope * 1000}
    print(f"{'samples':>9}{'seconds':>9}{'resident MB':>13}")
    for note in notes[::SHOWN]:
        print(f"{note['samples']:9}{note['seconds']:9.1f}{note['resident_mb']:13.1f}")
    flat = "flat" if slope * 1000 < WANTED_MB else "GROWING"
    print(f"{args.source}: {slope * 1000:+.3f} MB per 1000 samples ({flat})")
    report(results, args.json)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", choices=["stream", "table"], default="stream")
    parser.add_argument("--model", default="tiny.en", help="of the tokenizer: tiny.en, base or a folder")
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=4000, help="of the data set, in 8 files")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the results here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
