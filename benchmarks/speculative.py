"""Speculative decoding of recorded prompts against greedy decoding, in batches of several sizes.

    python -m benchmarks.speculative --rounds 5 --threads 2

Teacher: whisper-base in float32; assistant: its 2-layer student of ``benchmarks.speculative_student``, which
is trained first if it is not there. The tokens must be identical. Both sides decode the same encoder states;
with ``--whole`` from samples too. Seconds of the processor are given beside those of the clock: other work on
the machine changes them less.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.generation import read_recordings
from benchmarks.machine import describe, interleave, limit_threads, report
from benchmarks.transcribers import in_batches

SIDES = ("greedy", "speculative")


def open_decoders(args: argparse.Namespace) -> dict[str, Any]:
    """Return the model alone and the model with its assistant."""
    from benchmarks.checkpoints import checkpoint_folder
    from benchmarks.speculative_student import student_folder
    from flax_distil.model.compute_options import ComputeOptions
    from flax_distil.parallel.make_partitioner import single_device
    from flax_distil.pipeline.transcription_model import TranscriptionModel
    from flax_distil.transcription.options import TranscriptionOptions

    options = TranscriptionOptions(language="en", return_timestamps=args.timestamps)

    def open_with(**assistant: Any) -> Any:
        folder = str(checkpoint_folder("base"))
        return TranscriptionModel(
            folder, single_device(), options=options, compute=ComputeOptions(), **assistant
        ).load()

    student = args.student or str(student_folder())
    return {
        "greedy": open_with(),
        "speculative": open_with(assistant=student, num_assistant_tokens=args.num_assistant_tokens),
    }


def measure(args: argparse.Namespace, decoders: dict[str, Any], recordings: list[Any], size: int) -> Any:
    """Return the figures of one batch size."""
    import numpy as np

    from flax_distil.audio.clip import pad_or_trim
    from flax_distil.transcription.decoding_request import DecodingRequest

    batches = [np.stack([pad_or_trim(x) for x in part]) for part in in_batches(recordings, size)]
    greedy, speculative = (decoders[side] for side in SIDES)
    request = DecodingRequest(prompt=greedy.prompts.build("en"))
    encoded = [greedy.encode_samples(batch) for batch in batches]
    tokens: dict[str, list[Any]] = {}
    processor: dict[str, list[float]] = {}

    def decode(side: str, *, whole: bool) -> Callable[[], None]:
        generator, name = decoders[side], f"{side} whole" if whole else side

        def run() -> None:
            start, found = time.process_time(), []
            for states, batch in zip(encoded, batches, strict=True):
                given = generator.encode_samples(batch) if whole else states
                results = generator.collect(generator.dispatch(given, [request] * len(batch)))
                found += [result.tokens for result in results]
            tokens[name] = found
            processor.setdefault(name, []).append(time.process_time() - start)

        return run

    contestants = {
        f"{side} whole" if whole else side: decode(side, whole=whole)
        for whole in (False, True)
        for side in SIDES
        if args.whole or not whole
    }
    speculative.reset_statistics()
    rounds = interleave(contestants, rounds=args.rounds)
    if any(found != tokens["greedy"] for found in tokens.values()):
        raise RuntimeError(f"tokens differ at batch {size}: {tokens}")
    counted = speculative.statistics
    return {
        "batch": size,
        "tokens": sum(map(len, tokens["greedy"])),
        "acceptance": counted.acceptance_rate,
        "passes_per_token": counted.passes_per_token,
        "sides": {
            name: rounds.summary(name) | {"processor": statistics.median(processor[name][1:])}
            for name in contestants
        },
    }


def show(row: dict[str, Any]) -> None:
    """Print the figures of one batch size."""
    print(
        f"batch {row['batch']}: {row['tokens']} tokens, identical; acceptance {row['acceptance']:.0%}, "
        f"{row['passes_per_token']:.2f} teacher passes per token"
    )
    for name, side in row["sides"].items():
        base = row["sides"][name.replace("speculative", "greedy")]
        print(
            f"  {name:18}{side['seconds']:8.2f} s (fastest {side['fastest']:.2f}), processor "
            f"{side['processor']:7.2f} s, compile {side['compile_seconds']:5.1f} s: "
            f"{base['seconds'] / side['seconds']:.2f} × by the clock, "
            f"{base['processor'] / side['processor']:.2f} × by the processor"
        )


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    limit_threads(args.threads)
    recordings = read_recordings("prompts", args.recordings)
    audio_seconds = sum(map(len, recordings)) / 16000
    results: dict[str, Any] = {
        "benchmark": "speculative decoding", "machine": describe(args.threads), "arguments": vars(args),
        "audio_seconds": audio_seconds, "batches": [],
    }  # fmt: skip
    print(json.dumps(results["machine"]))
    decoders = open_decoders(args)
    print(f"base with a 2-layer student: {args.recordings} recordings ({audio_seconds:.0f} s), float32")
    for size in args.batch:
        results["batches"].append(measure(args, decoders, recordings, size))
        show(results["batches"][-1])
    report(results, args.json)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", help="folder of another student of whisper-base")
    parser.add_argument("--num_assistant_tokens", type=int, help="tokens per draft")
    parser.add_argument("--timestamps", action="store_true")
    parser.add_argument("--whole", action="store_true", help="time the encoder and the samples too")
    parser.add_argument("--recordings", type=int, default=16)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the results here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
