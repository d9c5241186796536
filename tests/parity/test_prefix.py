"""A forced beginning is taken as by CTranslate2, which is what faster-whisper decodes with."""

import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.audio.mel import log_mel
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.short_form import ShortFormTranscriber
from tests.parity.reference import encode
from tests.real_checkpoints import CTRANSLATE2, build_ctranslate2

THEIRS = """
import json, sys
import ctranslate2, numpy as np
folder, features, prompt = sys.argv[1:]
model = ctranslate2.models.Whisper(folder, device="cpu", compute_type="float32", inter_threads=1)
for mel in np.load(features):
    states = model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(mel.T[None])))
    [found] = model.generate(states, [json.loads(prompt)], beam_size=1)
    print(json.dumps(found.sequences_ids[0]))
"""
"""Run apart: CTranslate2 brings threads of its own."""


@pytest.mark.slow
@pytest.mark.parametrize("timestamps", [True, False])
def test_a_prefix_begins_the_transcript_as_in_faster_whisper(base, held_out, timestamps, tmp_path):
    folder = build_ctranslate2("base", CTRANSLATE2 / "whisper-base")
    samples_BW = held_out.of_all_lengths(4).samples_BW
    generator = WhisperGenerator(
        base.ours.config, base.ours.params, base.tokenizer, base.settings, compute=ComputeOptions(),
        options=TranscriptionOptions(
            language="en", prefix="You have", return_timestamps=timestamps, max_new_tokens=50
        ),
    )  # fmt: skip
    transcriber = ShortFormTranscriber(generator)
    states = encode(base.ours.config, base.ours.params["encoder"], samples_BW)
    ours = transcriber.collect(transcriber.dispatch_encoded({"encoder_out_BSD": states}, rows=len(states)))
    np.save(tmp_path / "features.npy", np.asarray(log_mel(jnp.asarray(samples_BW), num_mel_bins=80)))
    prompt_ids = generator.prompts.build("en")
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, str(folder), str(tmp_path / "features.npy"), json.dumps(prompt_ids)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(transcript.tokens) for transcript in ours] == theirs
    for transcript in ours:
        assert transcript.text.startswith("You have")
        assert transcript.text != "You have"
        if timestamps:
            assert transcript.segments[0].start == 0.0
