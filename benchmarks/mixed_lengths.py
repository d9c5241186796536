"""Short recordings and a long one in one list, against both apart: no row of a batch may compute for nothing.

Seconds are those of the processor, all threads together: a busy machine distorts them less than the clock.

python -m benchmarks.mixed_lengths --model tiny.en --rounds 3
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.checkpoints import checkpoint_folder
from flax_distil import FlaxWhisperPipeline
from flax_distil.audio.constants import SAMPLING_RATE
from tests.long_recording import long_recording


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--clip_seconds", type=float, default=3.0)
    parser.add_argument("--long_seconds", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    pipeline = FlaxWhisperPipeline(Path(checkpoint_folder(args.model)), batch_size=args.batch)
    length = round(args.clip_seconds * SAMPLING_RATE)
    speech = long_recording(args.clips * args.clip_seconds, split="validation")[0]
    clips = list(speech[: args.clips * length].reshape(args.clips, length))
    long = long_recording(args.long_seconds)[0][: round(args.long_seconds * SAMPLING_RATE)]
    lists = {"clips": clips, "long": [long], "long first": [long, *clips], "long last": [*clips, long]}
    times: dict[str, list[float]] = {name: [] for name in lists}
    texts: dict[str, list[str]] = {}
    for number in range(args.rounds + 1):  # the first compiles
        for name, given in lists.items():
            start = time.process_time()
            texts[name] = [result["text"] for result in pipeline(given)]
            seconds = time.process_time() - start
            print(f"round {number}: {name:12s} {seconds:6.2f} s", flush=True)
            if number:
                times[name].append(seconds)
    assert texts["long first"] == [*texts["long"], *texts["clips"]]
    assert texts["long last"] == [*texts["clips"], *texts["long"]]
    found = {name: statistics.median(seconds) for name, seconds in times.items()}
    apart = found["clips"] + found["long"]
    for name, seconds in found.items():
        print(f"{name:12s} {seconds:6.2f} s")
    for name in ("long first", "long last"):
        print(f"{name}: {found[name] / apart:.2f} times both apart, median of {args.rounds} rounds")
    spread = [np.ptp(seconds) / statistics.median(seconds) for seconds in times.values()]
    print(f"rounds of one list differ by up to {100 * max(spread):.0f} %")


if __name__ == "__main__":
    main()
