"""Batched greedy transcription of recorded prompts, ours against transformers.

    python -m benchmarks.generation --model base --rounds 5 --threads 2

Both sides: float32, from the same samples to tokens, log-mel included; the tokens must be identical.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.machine import describe, interleave, limit_threads, matmul_peak, report

SIDES = ("flax_distil", "transformers")

Transcribe = Callable[[], list[list[int]]]
"""Transcribes all recordings and returns their tokens."""


def read_recordings(count: int) -> tuple[list[Any], float]:
    """Return samples of held-out prompts, from the shortest text to the longest, and their seconds."""
    from benchmarks.checkpoints import REPOSITORY
    from flax_distil.audio import SAMPLING_RATE, decode_audio

    folder = REPOSITORY / "examples" / "asterisk_prompts" / "validation"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows.sort(key=lambda row: len(row["text"]))
    chosen = [rows[index * (len(rows) - 1) // max(count - 1, 1)] for index in range(count)]
    samples = [decode_audio(folder / row["file_name"]) for row in chosen]
    return samples, sum(map(len, samples)) / SAMPLING_RATE


def in_batches(recordings: list[Any], size: int) -> list[list[Any]]:
    return [recordings[start : start + size] for start in range(0, len(recordings), size)]


def our_transcriber(args: argparse.Namespace, recordings: list[Any]) -> Transcribe:
    import numpy as np

    from benchmarks.checkpoints import checkpoint_folder
    from flax_distil.audio import pad_or_trim
    from flax_distil.model import ComputeOptions
    from flax_distil.text import GenerationSettings, WhisperTokenizer
    from flax_distil.transcription import ShortFormTranscriber, TranscriptionOptions, WindowDecoder
    from flax_distil.weights import load_checkpoint

    folder = checkpoint_folder(args.model)
    checkpoint, tokenizer = load_checkpoint(folder), WhisperTokenizer.from_pretrained(folder)
    transcriber = ShortFormTranscriber(WindowDecoder(
        checkpoint.config, checkpoint.params, tokenizer,
        GenerationSettings.from_folder(folder, tokenizer.special),
        options=TranscriptionOptions(language="en" if tokenizer.special.is_multilingual else None),
        compute=ComputeOptions(),
    ))  # fmt: skip

    def run() -> list[list[int]]:
        batches = [np.stack([pad_or_trim(x) for x in part]) for part in in_batches(recordings, args.batch)]
        return [transcript.tokens for batch in batches for transcript in transcriber.transcribe(batch)]

    return run


def their_transcriber(args: argparse.Namespace, recordings: list[Any]) -> Transcribe:
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    from benchmarks.checkpoints import checkpoint_folder

    torch.set_num_threads(args.threads)
    folder = checkpoint_folder(args.model)
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = WhisperProcessor.from_pretrained(folder)
    settings = model.generation_config
    spoken = {"language": "en", "task": "transcribe"} if settings.is_multilingual else {}
    # generate() returns prompt, tokens and end of text; everything from the first of these on is special.
    first_special = settings.eos_token_id

    def run() -> list[list[int]]:
        found = []
        for part in in_batches(recordings, args.batch):
            features = processor(part, sampling_rate=16000, return_tensors="pt").input_features
            with torch.no_grad():
                rows = model.generate(
                    features, return_timestamps=False, num_beams=1, do_sample=False, **spoken
                )
            found += [[token for token in row if token < first_special] for row in rows.tolist()]
        return found

    return run


BUILDERS = {"flax_distil": our_transcriber, "transformers": their_transcriber}


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    limit_threads(args.threads)
    recordings, audio_seconds = read_recordings(args.recordings)
    results: dict[str, Any] = {
        "benchmark": "greedy transcription", "machine": describe(args.threads), "arguments": vars(args),
        "audio_seconds": audio_seconds, "peak": matmul_peak(),
    }  # fmt: skip
    print(json.dumps(results["machine"]))
    print(
        f"{args.model}: {args.recordings} recordings ({audio_seconds:.0f} s), each padded to 480000 samples, "
        f"batches of {args.batch}, float32"
    )
    contestants = {side: build(args, recordings) for side, build in BUILDERS.items()}
    tokens: dict[str, list[list[int]]] = {}
    rounds = interleave(
        {side: lambda side=side, run=run: tokens.update({side: run()}) for side, run in contestants.items()},
        rounds=args.rounds,
    )
    if tokens[SIDES[0]] != tokens[SIDES[1]]:
        different = [pair for pair in zip(*tokens.values(), strict=True) if pair[0] != pair[1]]
        raise RuntimeError(f"the two sides emit different tokens: {different}")
    results["peak"] = max(results["peak"], matmul_peak())
    results["tokens"] = sum(map(len, tokens[SIDES[0]]))
    results["sides"] = {side: rounds.summary(side) for side in SIDES}
    show(args, results)
    report(results, args.json)


def show(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Print the table."""
    from benchmarks.checkpoints import checkpoint_folder
    from flax_distil.model import WhisperConfig
    from flax_distil.planning.operations import encoder_flop

    config = WhisperConfig.from_huggingface(
        json.loads((checkpoint_folder(args.model) / "config.json").read_text())
    )
    encoder = encoder_flop(config, args.recordings) / 1e9
    print(
        f"matmul peak of this machine: {results['peak']:.0f} GFLOP/s (float32); the encoder's "
        f"{encoder:.0f} GFLOP would take {encoder / results['peak']:.1f} s there"
    )
    print(f"{'':14}{'median':>9}{'fastest':>9}{'slowest':>9}{'compile':>9}{'RTFx':>8}{'tokens/s':>10}")
    for side, row in results["sides"].items():
        print(
            f"{side:14}{row['seconds']:8.2f}s{row['fastest']:8.2f}s{row['slowest']:8.2f}s"
            f"{row['compile_seconds']:8.1f}s{results['audio_seconds'] / row['seconds']:8.1f}"
            f"{results['tokens'] / row['seconds']:10.1f}"
        )
    ours, theirs = (results["sides"][side]["seconds"] for side in SIDES)
    print(f"time: {ours / theirs:.2f} × transformers, with identical tokens")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="base", help="tiny.en, base or a checkpoint folder")
    parser.add_argument("--recordings", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the results here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
