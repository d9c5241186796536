"""A forced beginning is taken as faster-whisper takes it, with and without timestamps."""

import json
import subprocess
import sys

import numpy as np
import pytest

from flax_distil.model import ComputeOptions
from flax_distil.transcription import ShortFormTranscriber, TranscriptionOptions, WindowDecoder
from tests.checkpoints import CTRANSLATE2, build_ctranslate2
from tests.parity.reference import encode

THEIRS = """
import json, sys
import numpy as np
from faster_whisper import WhisperModel
folder, samples, timestamps = sys.argv[1:]
model = WhisperModel(folder, device="cpu", compute_type="float32", cpu_threads=2)
segments, _ = model.transcribe(
    np.load(samples), language="en", beam_size=1, temperature=[0.0], prefix="You have",
    without_timestamps=timestamps == "False", condition_on_previous_text=False,
)
print(json.dumps([[s.start, s.end, s.text, s.tokens, float(s.avg_logprob)] for s in segments]))
"""
"""Run apart: CTranslate2 and PyTorch bring threads of their own that do not go together."""


@pytest.mark.slow
@pytest.mark.parametrize("timestamps", [True, False])
def test_a_prefix_begins_the_transcript_as_in_faster_whisper(base, held_out, timestamps, tmp_path):

    build_ctranslate2("base", CTRANSLATE2 / "whisper-base")
    recordings = held_out.of_all_lengths(3)
    transcriber = ShortFormTranscriber(WindowDecoder(
        base.ours.config, base.ours.params, base.tokenizer, base.settings, compute=ComputeOptions(),
        options=TranscriptionOptions(language="en", prefix="You have", return_timestamps=timestamps),
    ))  # fmt: skip
    states = encode(base.ours.config, base.ours.params["encoder"], recordings.samples_BW)
    ours = transcriber.collect(transcriber.dispatch_states({"states_BSD": states}, rows=len(states)))
    for transcript, samples_W in zip(ours, recordings.samples_BW, strict=True):
        content = np.trim_zeros(samples_W, "b")
        np.save(tmp_path / "samples.npy", content)
        arguments = [str(CTRANSLATE2 / "whisper-base"), str(tmp_path / "samples.npy"), str(timestamps)]
        done = subprocess.run(
            [sys.executable, "-c", THEIRS, *arguments], check=True, capture_output=True, text=True
        )
        theirs = json.loads(done.stdout.splitlines()[-1])
        text = "".join(segment[2] for segment in theirs)
        assert transcript.text == text.strip()
        assert transcript.text.startswith("You have")
        if timestamps:
            assert transcript.segments[0].start == theirs[0][0] == 0.0
            assert [segment.end for segment in transcript.segments][:-1] == [one[1] for one in theirs][:-1]
