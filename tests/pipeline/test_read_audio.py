"""Whatever a program hands over as a recording is read, or refused in one sentence."""

import os
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.core.errors import InputError
from flax_distil.pipeline.inputs.read_audio import read_audio

TONE = np.sin(np.arange(8000) / 10).astype(np.float32) / 2


class Decoder:
    """Looks like the ``AudioDecoder`` of torchcodec, which ``datasets`` gives from its version 4 on."""

    def __init__(self, samples_CW, rate):
        self.samples_CW, self.rate = samples_CW, rate

    def get_all_samples(self):
        return types.SimpleNamespace(data=self.samples_CW, sample_rate=self.rate)


class Broken:
    def get_all_samples(self):
        raise RuntimeError("Could not push packet\nto decoder")


@pytest.mark.parametrize("name", ["~temp.wav", os.fsdecode(b"caf\xe9.wav"), "caf\u00e9.wav", "a b;$(x).wav"])
def test_files_of_unusual_names_are_read(name, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "plain.wav", TONE, SAMPLING_RATE)
    os.rename(tmp_path / "plain.wav", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read_audio(name)) == len(read_audio(Path(name))) == len(TONE)


def test_a_decoder_of_datasets_is_read_at_its_own_rate_and_of_several_channels_the_mean():
    samples = np.stack([TONE, TONE / 2])
    np.testing.assert_allclose(read_audio(Decoder(samples, SAMPLING_RATE)), TONE * 0.75, atol=1e-6)
    assert len(read_audio(Decoder(samples, 8000))) == 2 * len(TONE)
    assert len(read_audio(Decoder(TONE, SAMPLING_RATE))) == len(TONE)


@pytest.mark.parametrize("shape", [(1, -1), (-1, 1)])
def test_an_axis_of_one_channel_says_nothing(shape):
    np.testing.assert_array_equal(read_audio(TONE.reshape(shape)), TONE)


@pytest.mark.parametrize("shape", [(2, -1), (-1, 2), (2, 2, -1)])
def test_an_array_of_several_channels_is_ambiguous(shape):
    with pytest.raises(InputError, match="of several channels give one, or their mean"):
        read_audio({"array": TONE.reshape(shape), "sampling_rate": SAMPLING_RATE})


def test_a_recording_without_samples_has_none(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), SAMPLING_RATE)
    nothing = np.zeros(0, np.float32)
    for given in (
        tmp_path / "empty.wav",
        (tmp_path / "empty.wav").read_bytes(),
        nothing,
        Decoder(nothing, 8000),
    ):
        assert read_audio(given).shape == (0,)
    assert read_audio({"array": [], "sampling_rate": 8000}).shape == (0,)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("a\0b.wav", "null"),
        ({"path": "\0"}, "null"),
        ("n" * 300 + ".wav", "name too long"),
        ("~nobody-here/a.wav", "does not exist"),
        ("", "it is a folder"),
        (b"", "0 bytes"),
        (None, "given as NoneType"),
        ([0.5, 0.5], "given as list"),
        (Broken(), "Could not push packet to decoder"),
        ({"array": [0.5], "sampling_rate": "fast"}, "cannot be read: invalid literal"),
        ({"array": [[0.5], [0.5, 0.1]], "sampling_rate": 8000}, "cannot be read"),
        ({"array": [np.nan], "sampling_rate": 8000}, "NaN or infinite"),
        (np.zeros(3, np.int16), "divide whole numbers by their range"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(given, sentence):
    with pytest.raises(InputError, match=sentence) as raised:
        read_audio(given)
    assert "\n" not in str(raised.value)


def test_a_file_reads_as_ever(prompts_dir):
    file = prompts_dir / "validation" / "conf-full.ogg"
    np.testing.assert_array_equal(read_audio(str(file)), decode_audio(file))
