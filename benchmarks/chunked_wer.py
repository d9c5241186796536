"""Word errors of one long recording with pauses: window after window, and in chunks merged in either way.

python -m benchmarks.chunked_wer --model base [--audio recording.wav --text reference.txt]
"""

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.transcribers import our_decoder
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.metrics.word_errors import sample_wer
from flax_distil.text.normalizers import get_normalizer
from flax_distil.transcription.modes import make_transcriber
from flax_distil.transcription.options import FALLBACK_TEMPERATURES
from tests.long_recording import long_recording

THRESHOLDS = {
    "logprob_threshold": -1.0,
    "no_speech_threshold": 0.6,
    "token_compression_ratio_threshold": 1.35,
    "temperature": FALLBACK_TEMPERATURES,
    "return_timestamps": True,
}

WAYS = {
    "sequential": ("sequential", {}, THRESHOLDS),
    "chunked 15 s": ("chunked", {"chunk_length_s": 15.0}, THRESHOLDS),
    "chunked 30 s": ("chunked", {"chunk_length_s": 30.0}, THRESHOLDS),
    "chunked 30 s, longest_common_sequence": (
        "chunked", {"chunk_length_s": 30.0, "chunk_merging": "longest_common_sequence"}, {},
    ),
    "chunked 15 s, longest_common_sequence": (
        "chunked", {"chunk_length_s": 15.0, "chunk_merging": "longest_common_sequence"}, {},
    ),
}  # fmt: skip


def given_recording(args: argparse.Namespace) -> tuple[np.ndarray, str]:
    if args.audio is None:
        return long_recording(args.seconds, split="validation")
    return decode_audio(Path(args.audio)), Path(args.text).read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--audio")
    parser.add_argument("--text")
    parser.add_argument("--seconds", type=float, default=300.0, help="of the recording that is made")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--show", action="store_true", help="print the texts")
    args = parser.parse_args()
    samples, reference = given_recording(args)
    print(f"{args.model}: {len(samples) / 16000:.0f} s, {len(reference.split())} words")
    for name in args.ways:
        mode, cuts, options = WAYS[name]
        transcriber = make_transcriber(mode, our_decoder(args, **options), batch_size=args.batch, **cuts)
        start = time.perf_counter()
        [(_, transcript)] = transcriber.transcribe_recordings([("recording", samples)])
        seconds = time.perf_counter() - start
        wer = sample_wer(reference, transcript.text, get_normalizer("en"))
        print(
            f"{name:40s} WER {wer:5.1f} %  {len(transcript.text.split()):4d} words  {seconds:5.1f} s",
            flush=True,
        )
        if args.show:
            for segment in transcript.segments:
                print(f"   {segment.start:7.2f} {segment.end or -1:7.2f} {segment.text}")


if __name__ == "__main__":
    main()
