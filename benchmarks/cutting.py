"""Cutting one long recording into segments of speech: speed and memory.

    python -m benchmarks.cutting --hours 1 --vad silero

The recording is made of the bundled prompts, with pauses and a little noise, as FLAC. It is read
twice: once for the segments, once for their pieces.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.machine import report
from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.audio.segmentation import cut_segments, speech_segments
from flax_distil.audio.voice_activity import VoiceActivity

PROMPTS = Path(__file__).parents[1] / "examples" / "asterisk_prompts" / "train"
PAUSES = (0.3, 0.6, 1.0, 2.5)  # seconds


def write_recording(path: Path, hours: float) -> None:
    random = np.random.default_rng(0)
    prompts = [decode_audio(prompt) for prompt in sorted(PROMPTS.glob("*.ogg"))]
    with soundfile.SoundFile(path, "w", SAMPLING_RATE, 1, "PCM_16") as file:
        written = 0
        while written < hours * 3600 * SAMPLING_RATE:
            pause = np.zeros(round(random.choice(PAUSES) * SAMPLING_RATE), np.float32)
            part = np.concatenate([prompts[random.integers(len(prompts))], pause])
            file.write((part + 1e-3 * random.normal(size=len(part))).clip(-1, 1))
            written += len(part)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--vad", choices=("energy", "silero"), default="energy")
    parser.add_argument("--json", help="write the results here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.flac"
        write_recording(path, args.hours)
        before = peak_mb()
        cpu, start = time.process_time(), time.perf_counter()
        segments = speech_segments(path, VoiceActivity(args.vad))
        found = time.perf_counter()
        flac_bytes = sum(len(piece) for _, piece in cut_segments(path, segments))
        done, cpu = time.perf_counter(), time.process_time() - cpu
        seconds = soundfile.info(path).duration
    lengths = [segment.duration_seconds for segment in segments]
    figures = {
        "hours": round(seconds / 3600, 3),
        "segments": len(segments),
        "mean_seconds": round(float(np.mean(lengths)), 2),
        "longest_seconds": round(max(lengths), 2),
        "flac_mb": round(flac_bytes / 1e6, 1),
        "times_real_time": round(seconds / (done - start)),
        "times_real_time_finding": round(seconds / (found - start)),
        "times_real_time_cutting": round(seconds / (done - found)),
        "times_real_time_per_cpu_second": round(seconds / cpu),
        "peak_mb": round(peak_mb()),
        "peak_before_mb": round(before),
    }
    print(json.dumps({"vad": args.vad, **figures}, indent=2))
    report({"benchmark": "cutting", "arguments": vars(args), **figures}, args.json)


if __name__ == "__main__":
    main()
