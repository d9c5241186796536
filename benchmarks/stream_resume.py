"""Resuming far into a streamed data set: seconds to the next batch, and recordings decoded for it.

    python -m benchmarks.stream_resume --samples 50000

A pipeline reads so many samples of silence (a tenth of a second each, in 64 Parquet files) and gives its
position; another one, made anew, goes on from there. Both must give the same batch.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.machine import describe, limit_threads, report

SHARDS = 64
WANTED_SECONDS = 5.0


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    limit_threads(args.threads)
    from benchmarks.recordings import silence

    results: dict[str, Any] = {
        "benchmark": "resuming a stream", "machine": describe(args.threads), "arguments": vars(args),
    }  # fmt: skip
    print(json.dumps(results["machine"]))
    with tempfile.TemporaryDirectory() as folder:
        files = silence(args.samples + 14_000, SHARDS, Path(folder))
        start = time.perf_counter()
        with opened(args, files) as pipeline:
            for _ in range(args.samples // args.batch):
                next(pipeline)
            position = json.dumps(pipeline.get_state())
            wanted = next(pipeline)
        results["seconds_without_resuming"] = time.perf_counter() - start
        results |= resumed(args, files, position, wanted)
    results["position_bytes"] = len(position)
    print(
        f"at sample {args.samples:,}: {results['seconds']:.2f} s to the next batch (wanted: at most "
        f"{WANTED_SECONDS:g} s; from the beginning it took {results['seconds_without_resuming']:.1f} s), "
        f"{results['decoded']} recordings decoded, {args.batch} in the batch"
    )
    report(results, args.json)


def resumed(args: argparse.Namespace, files: list[Path], position: str, wanted: Any) -> dict[str, Any]:
    """Go on from a position in a new pipeline; return seconds and recordings decoded."""
    from flax_distil.data.training import sample_loader

    with mock.patch.object(sample_loader, "decode_row", side_effect=sample_loader.decode_row) as decode_row:
        start = time.perf_counter()
        with opened(args, files) as pipeline:
            pipeline.set_state(json.loads(position))
            batch = next(pipeline)
            seconds, decoded = time.perf_counter() - start, decode_row.call_count
    for name, value in vars(wanted).items():
        np.testing.assert_array_equal(getattr(batch, name), value, err_msg=name)
    return {"seconds": seconds, "decoded": decoded}


def opened(args: argparse.Namespace, files: list[Path]) -> Any:
    from contextlib import closing

    from benchmarks.data_pipeline import training_source
    from flax_distil.data.training.pipeline import TrainingPipeline
    from flax_distil.data.training.pipeline_config import PipelineConfig
    from flax_distil.data.training.training_sources import TrainingData

    source = training_source(args, files, streaming=True)
    return closing(
        TrainingPipeline(
            TrainingData(sources=[source]),
            PipelineConfig(batch_size=args.batch, num_threads=args.threads),
            seed=0,
        )
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny.en", help="of the tokenizer: tiny.en, base or a folder")
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the results here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
