"""Transcription of recorded speech, ours against transformers and faster-whisper.

    python -m benchmarks.generation --task prompts --model base --rounds 5 --threads 2
    python -m benchmarks.generation --task sequential

Tasks: ``prompts`` (16 prompts of 2 to 7 s) and ``utterances`` (16 of 10 to 29 s), both in batches; ``mixed``,
all 80 prompts and the utterances in random order;
``sequential``, ``chunked`` and ``vad``, one recording of five minutes. All sides: greedy, from the same
samples to text, log-mel included; float32, and faster-whisper in int8 too. The texts of transformers must be
ours, but for ``vad``: there transformers cuts chunks that overlap, and faster-whisper packs speech in its
batched pipeline.
"""

import argparse
import dataclasses
import functools
import io
import json
import sys
from typing import Any

from benchmarks.machine import describe, interleave, limit_threads, matmul_peak, report
from benchmarks.transcribers import SIDES, Recordings, build_sides

LONG = ("sequential", "chunked", "vad")
TASKS = ("prompts", "utterances", "mixed", *LONG)
SECONDS = 300


def read_recordings(task: str, count: int) -> Recordings:
    """Return 16 kHz samples, from the shortest text to the longest, a random mixture, or long recordings."""
    if task in LONG:
        return [samples for samples, _ in _long(count)]
    if task == "mixed":
        import numpy as np

        rows = _prompts() + _utterances(count)
        return [rows[index][0] for index in np.random.default_rng(0).permutation(len(rows))]
    chosen = sorted(_prompts() if task == "prompts" else _utterances(count), key=lambda row: len(row[1]))
    last = len(chosen) - 1
    return [chosen[index * last // max(count - 1, 1)][0] for index in range(count)]


def _long(count: int) -> list[tuple[Any, str]]:
    from tests.long_recording import long_recording

    return [long_recording(SECONDS, seed=number) for number in range(count)]


def _prompts() -> list[tuple[Any, str]]:
    from benchmarks.checkpoints import REPOSITORY
    from flax_distil.audio.reading.decoding import decode_audio

    folder = REPOSITORY / "examples" / "asterisk_prompts" / "validation"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    return [(decode_audio(folder / row["file_name"]), row["text"]) for row in rows]


def _utterances(count: int) -> list[tuple[Any, str]]:
    import pyarrow.parquet as pq
    import soundfile

    from benchmarks.recordings import real_utterances

    rows = pq.read_table(real_utterances(640)[0]).slice(0, count).to_pylist()
    return [
        (soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")[0], row["text"]) for row in rows
    ]


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    limit_threads(args.threads)
    is_long = args.task in LONG
    recordings = read_recordings(args.task, args.files if is_long else args.recordings)
    seconds = sum(map(len, recordings)) / 16000
    results: dict[str, Any] = {
        "benchmark": f"transcription: {args.task}", "machine": describe(args.threads),
        "arguments": vars(args), "audio_seconds": seconds, "peak": matmul_peak(),
    }  # fmt: skip
    print(json.dumps(results["machine"]))
    print(
        f"{args.task}: {args.model}, {len(recordings)} recordings, {seconds:.0f} s, batches of {args.batch}"
    )
    texts: dict[str, list[str]] = {}

    def contest(side: str, run: Any) -> None:
        texts[side] = run(recordings)

    sides = build_sides(args.task if is_long else "short", args)
    rounds = interleave(
        {side: functools.partial(contest, side, run) for side, run in sides.items()}, rounds=args.rounds
    )
    results["peak"] = max(results["peak"], matmul_peak())
    results["sides"] = {side: rounds.summary(side) for side in sides}
    results["other_texts"] = {
        side: sum(a != b for a, b in zip(texts[SIDES[0]], texts[side], strict=True)) for side in sides
    }
    results["row_steps"] = dataclasses.asdict(sides[SIDES[0]].generator.row_steps)  # type: ignore[attr-defined]
    if is_long:
        references = [text for _, text in _long(args.files)]
        results["wer"] = {side: _wer(references, found) for side, found in texts.items()}
    show(args, results)
    report(results, args.json)
    if args.task == "vad" or SIDES[1] not in sides:  # in vad, the others cut elsewhere
        return
    if texts[SIDES[0]] != texts[SIDES[1]]:
        pairs = zip(texts[SIDES[0]], texts[SIDES[1]], strict=True)
        raise RuntimeError(
            f"ours and transformers' texts differ: {[pair for pair in pairs if pair[0] != pair[1]]}"
        )


def _wer(references: list[str], texts: list[str]) -> float:
    """Return the word error rate in per cent, by Whisper's rules for English."""
    import jiwer
    from whisper_normalizer.english import EnglishTextNormalizer

    normalize = EnglishTextNormalizer()
    return 100 * jiwer.wer([normalize(text) for text in references], [normalize(text) for text in texts])


def show(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Print the table; a ratio is a side's time over ours."""
    print(f"matmul peak of this machine: {results['peak']:.0f} GFLOP/s (float32)")
    print(
        f"{'':20}{'median':>9}{'fastest':>9}{'slowest':>9}{'compile':>9}{'RTFx':>8}"
        f"{'time over ours':>16}{'other texts':>13}"
    )
    ours = results["sides"][SIDES[0]]["seconds"]
    for side, row in results["sides"].items():
        print(
            f"{side:20}{row['seconds']:8.2f}s{row['fastest']:8.2f}s{row['slowest']:8.2f}s"
            f"{row['compile_seconds']:8.1f}s{results['audio_seconds'] / row['seconds']:8.1f}"
            f"{row['seconds'] / ours:16.2f}{results['other_texts'][side]:13}"
            + (f"   WER {results['wer'][side]:.2f} %" if "wer" in results else "")
        )
    steps = results["row_steps"]
    print(f"of ours, {100 * (1 - steps['used'] / steps['ran']):.1f} % of all rows' steps were idle")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="prompts", choices=TASKS)
    parser.add_argument("--model", default="base", help="tiny.en or base")
    parser.add_argument("--recordings", type=int, default=16, help="short ones")
    parser.add_argument("--files", type=int, default=1, help="long ones")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="leave the other programs out")
    parser.add_argument("--json", help="write the results here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
