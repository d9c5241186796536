"""The way from a call of the library to the logits of a decoding step is short enough to read."""

import inspect
from pathlib import Path

import numpy as np

import flax_distil
from flax_distil import FlaxWhisperPipeline
from flax_distil.model.decoder import Decoder

PACKAGE = str(Path(flax_distil.__file__).parent)


def test_a_call_reaches_the_logits_of_a_step_in_twelve_frames_and_eight_files(tiny_en_dir, monkeypatch):
    ways, logits = [], Decoder.logits

    def recorded(*arguments):
        frames = [(frame.filename, frame.function) for frame in inspect.stack()[1:]]
        ways.append([frame for frame in reversed(frames) if frame[0].startswith(PACKAGE)])
        return logits(*arguments)

    monkeypatch.setattr(Decoder, "logits", recorded)
    noise = np.random.default_rng(0).normal(scale=0.1, size=16_000).astype(np.float32)
    # No other test asks for as many tokens, so functions are traced here, with a small cache and a large one.
    FlaxWhisperPipeline(tiny_en_dir)(noise, max_new_tokens=200, temperature=0.0)
    steps = [way for way in ways if way[-1][1] == "step"]
    assert steps, ways
    for way in steps:
        assert (Path(way[0][0]).name, way[0][1]) == ("pipeline.py", "__call__")
        way.append((inspect.getfile(Decoder), "logits"))
        listed = "\n".join(f"{Path(file).relative_to(PACKAGE)}: {function}" for file, function in way)
        assert len(way) <= 12, listed
        assert len({file for file, _ in way}) <= 8, listed
