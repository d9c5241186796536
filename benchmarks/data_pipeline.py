"""The host pipeline: FLAC recordings to batches of 16-bit samples and labels, against a DataLoader.

    python -m benchmarks.data_pipeline --rounds 5 --threads 2

Both sides: the same Parquet files, utterances of 10 to 30 s joined from recorded prompts, to batches of
int16 [B, 480000] and token ids; the samples must be identical. The other side is what users write
themselves: ``datasets``, libsndfile, transformers' tokenizer, in worker processes of torch's DataLoader.
"""

import argparse
import json
import os
import resource
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe, interleave, limit_threads, report

SIDES = ("flax_distil", "streamed", "DataLoader")
WANTED = 200
"""Times real time per core."""

Batches = Iterator[tuple[list[str], np.ndarray]]
"""Names and int16 samples [B, 480000] of each batch; labels are made and thrown away."""


def our_batches(args: argparse.Namespace, files: list[Path], *, streaming: bool) -> Batches:
    """Read one epoch with the training pipeline."""
    from flax_distil.data.training.pipeline import TrainingPipeline
    from flax_distil.data.training.pipeline_config import PipelineConfig
    from flax_distil.data.training.training_sources import TrainingData

    pipeline = TrainingPipeline(
        TrainingData(sources=[training_source(args, files, streaming=streaming)]),
        PipelineConfig(batch_size=args.batch, num_threads=args.threads, shuffle_buffer_size=args.recordings),
        seed=0,
    )
    try:
        for _ in range(args.recordings // args.batch):
            batch = next(pipeline)
            yield batch.ids, batch.samples_BW
    finally:
        pipeline.close()


def training_source(args: argparse.Namespace, files: list[Path], *, streaming: bool) -> Any:
    from benchmarks.checkpoints import checkpoint_folder
    from flax_distil.data.preprocessing.config import FilterConfig, LabelConfig
    from flax_distil.data.preprocessing.labels import LabelBuilder
    from flax_distil.data.sources.dataset_spec import DatasetSpec
    from flax_distil.data.sources.load_datasets import load_streams, load_table
    from flax_distil.data.training.training_sources import StreamSource, TableSource
    from flax_distil.text.normalizers import get_normalizer
    from flax_distil.text.tokenizer import WhisperTokenizer

    tokenizer = WhisperTokenizer.from_pretrained(checkpoint_folder(args.model))
    labels = LabelBuilder(tokenizer, LabelConfig(language="en"))
    pattern = str(files[0]).replace("-0.parquet", "-*.parquet")
    if streaming:
        (stream,) = load_streams(DatasetSpec(name=pattern, text_column="text"))
        return StreamSource(
            stream=stream, labels=labels, filters=FilterConfig(), normalize=get_normalizer("en")
        )
    return TableSource(data=load_table(DatasetSpec(name=pattern, text_column="text")), labels=labels)


class Recordings:
    """The other side's data set; every worker process gets a copy."""

    def __init__(self, model: Path, files: list[Path]):
        import datasets
        from transformers import WhisperTokenizerFast

        table = datasets.load_dataset("parquet", data_files=list(map(str, files)), split="train")
        self._table = table.cast_column("audio", datasets.Audio(decode=False))
        self._tokenizer = WhisperTokenizerFast.from_pretrained(model)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray, list[int]]:
        import io

        import soundfile

        row = self._table[index]
        samples, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        return row["id"], samples, self._tokenizer(row["text"]).input_ids


def joined(samples: list[tuple[str, np.ndarray, list[int]]]) -> tuple[list[str], Any, Any]:
    import torch

    audio = np.zeros((len(samples), 480_000), np.int16)
    tokens = np.full((len(samples), 448), -100, np.int32)
    for row, (_, waveform, label) in enumerate(samples):
        audio[row, : len(waveform)] = waveform
        tokens[row, : len(label)] = label
    return [name for name, *_ in samples], torch.from_numpy(audio), torch.from_numpy(tokens)


def their_batches(args: argparse.Namespace, files: list[Path]) -> Batches:
    """Read one epoch with worker processes; with one core in the process itself, which is faster there."""
    import torch

    from benchmarks.checkpoints import checkpoint_folder

    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        Recordings(checkpoint_folder(args.model), files),  # type: ignore[arg-type]
        batch_size=args.batch,
        shuffle=True,
        num_workers=args.threads if args.threads > 1 else 0,
        collate_fn=joined,
        drop_last=True,
    )
    for names, audio, _ in loader:
        yield names, audio.numpy()


def processor_seconds() -> float:
    """Return what this process and its finished children computed: that of workers, too."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def checksums(batches: Batches) -> dict[str, int]:
    return {
        name: zlib.crc32(row.tobytes())
        for names, samples in batches
        for name, row in zip(names, samples, strict=True)
    }


def stages(args: argparse.Namespace, files: list[Path], count: int = 64) -> dict[str, float]:
    """Return milliseconds per sample of each part of our side, one after the other in one thread."""
    from flax_distil.audio.reading.decoding import decode_audio
    from flax_distil.data.decoded_example import DurationLimits, decode_row
    from flax_distil.data.preprocessing.labels import sample_random
    from flax_distil.data.training.batches import TokenizedExample, collate

    source = training_source(args, files, streaming=False)

    def clocked(run: Callable[[int], Any]) -> tuple[float, list[Any]]:
        start = time.thread_time()
        results = [run(number) for number in range(count)]
        return (time.thread_time() - start) / count * 1000, results

    row_ms, rows = clocked(lambda number: source.read(number).rows[0])
    decode_ms, _ = clocked(lambda number: decode_audio(rows[number].audio["bytes"]))
    limits = DurationLimits()
    sample_ms, samples = clocked(lambda number: decode_row(rows[number], limits))
    label_ms, labels = clocked(
        lambda number: source.labels.build(
            rows[number].label, random=sample_random(seed=0, epoch=0, sample_id=rows[number].sample_id)
        )
    )
    made = [TokenizedExample(sample=samples[n], label=labels[n]) for n in range(count)]
    options: dict[str, Any] = {"batch_size": args.batch, "pad_token": source.labels.pad_token}
    options |= {"buckets": (64, 128, 448), "audio_dtype": np.dtype(np.int16)}
    starts = range(0, count, args.batch)
    start = time.thread_time()
    for first in starts:
        collate(made[first : first + args.batch], **options)
    collate_ms = (time.thread_time() - start) / count * 1000
    return {
        "row from Arrow": row_ms,
        "decode to float32": decode_ms,
        "checks around it": max(0.0, sample_ms - decode_ms),
        "label": label_ms,
        "int16 batch": collate_ms,
    }


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    limit_threads(args.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import pyarrow.parquet as pq

    from benchmarks.recordings import real_utterances

    files = real_utterances(args.recordings)
    audio_seconds = sum(
        sum(pq.read_table(file, columns=["duration"])["duration"].to_pylist()) for file in files
    )
    results: dict[str, Any] = {
        "benchmark": "host pipeline", "machine": describe(args.threads), "arguments": vars(args),
        "audio_seconds": audio_seconds, "megabytes": sum(file.stat().st_size for file in files) / 1e6,
    }  # fmt: skip
    print(json.dumps(results["machine"]))
    print(
        f"{args.recordings} utterances, {audio_seconds / 3600:.2f} hours, {results['megabytes']:.0f} MB "
        f"of FLAC, batches of {args.batch}"
    )
    read: dict[str, Callable[[], Batches]] = {
        "flax_distil": lambda: our_batches(args, files, streaming=False),
        "streamed": lambda: our_batches(args, files, streaming=True),
        "DataLoader": lambda: their_batches(args, files),
    }
    first, *others = (checksums(read[side]()) for side in SIDES)
    if len(first) != args.recordings or any(other != first for other in others):
        raise RuntimeError("the sides do not give the same samples")
    processor: dict[str, list[float]] = {side: [] for side in SIDES}

    def epoch(side: str) -> None:
        start = processor_seconds()
        for _ in read[side]():
            pass
        processor[side].append(processor_seconds() - start)

    rounds = interleave({side: lambda side=side: epoch(side) for side in SIDES}, rounds=args.rounds)
    results["sides"] = {
        side: rounds.summary(side) | {"processor_seconds": float(np.median(processor[side][1:]))}
        for side in SIDES
    }
    results["milliseconds_per_sample"] = stages(args, files)
    show(args, results)
    report(results, args.json)


def show(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Print the table."""
    audio = results["audio_seconds"]
    print(f"{'':14}{'median':>9}{'× real time':>13}{'per core':>10}{'per core-second computed':>26}")
    for side, row in results["sides"].items():
        speed = audio / row["seconds"]
        print(
            f"{side:14}{row['seconds']:8.2f}s{speed:13.0f}{speed / args.threads:10.0f}"
            f"{audio / row['processor_seconds']:26.0f}"
        )
    ours, theirs = (results["sides"][side]["seconds"] for side in ("flax_distil", "DataLoader"))
    core = audio / ours / args.threads
    print(
        f"time: {ours / theirs:.2f} × DataLoader, with identical samples; {core:.0f} × real time per core",
        end="",
    )
    print(f" ({'at least' if core >= WANTED else 'BELOW'} the {WANTED} wanted)")
    parts = results["milliseconds_per_sample"]
    print("one sample, one thread: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in parts.items()))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="tiny.en", help="whose tokenizer: tiny.en, base or a checkpoint folder"
    )
    parser.add_argument("--recordings", type=int, default=640, help="utterances; whole batches in 4 files")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the results here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
