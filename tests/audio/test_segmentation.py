"""Long recordings are cut in silence, lose no speech, and their pieces say where they come from."""

import io
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flax_distil.audio import voice_activity
from flax_distil.audio.reading.decoding import decode_audio, open_audio
from flax_distil.audio.reading.errors import AudioError
from flax_distil.audio.segmentation import cut_segments, segment_frames, speech_segments
from flax_distil.audio.voice_activity import VoiceActivity
from flax_distil.core.errors import InputError

PROMPTS = Path(__file__).parents[2] / "examples" / "asterisk_prompts" / "train"
RATE = 16_000
PAUSES = (0.5, 0.8, 1.2, 4.0)  # seconds; the last is a long silence
DETECTORS = ("energy", "silero")
Span = tuple[int, int]


def flac(samples: np.ndarray, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    return buffer.getvalue()


def joined(count: int, noise: float) -> tuple[np.ndarray, list[Span]]:
    """Join prompts with pauses over background noise; also tell where speech is loud."""
    random = np.random.default_rng(count)
    parts, speech, position = [], [], 0
    for path in sorted(PROMPTS.glob("*.ogg"))[:count]:
        pause = np.zeros(round(random.choice(PAUSES) * RATE), np.float32)
        prompt = decode_audio(path)
        heard = np.flatnonzero(np.abs(prompt) > 0.05)  # prompts begin and end with silences of their own
        begin = position + len(pause)
        speech.append((begin + int(heard[0]), begin + int(heard[-1])))
        parts += [pause, prompt]
        position = begin + len(prompt)
    samples = np.concatenate(parts)
    return (samples + noise * random.normal(size=len(samples))).clip(-1, 1).astype(np.float32), speech


@pytest.fixture(scope="module", params=[1e-4, 5e-3], ids=["quiet", "noisy"])
def recording(request) -> tuple[bytes, list[Span]]:
    samples, speech = joined(50, request.param)
    return flac(samples), speech


@pytest.mark.parametrize("vad", DETECTORS)
def test_cuts_lie_in_silence_and_all_speech_is_kept(recording, vad):
    encoded, speech = recording
    segments = speech_segments(encoded, VoiceActivity(vad))
    assert all(0.1 < segment.duration_seconds <= 30 for segment in segments)
    assert all(one.stop <= other.start for one, other in pairwise(segments))
    for start, stop in speech:
        # A prompt of several sentences may be cut between them; what is left out must be silent.
        inside = [s for s in segments if s.start < stop and s.stop > start]
        assert inside[0].start <= start
        assert inside[-1].stop >= stop
    samples = decode_audio(encoded)
    kept = np.zeros(len(samples), bool)
    for segment in segments:
        kept[segment.start : segment.stop] = True
        for edge in (segment.start, segment.stop):
            around = samples[max(0, edge - 240) : edge + 240]
            assert np.sqrt(np.mean(np.square(around))) < 0.02, edge / RATE
    assert np.abs(samples[~kept]).max() < 0.1
    left_out = [(stop, start) for (_, stop), (start, _) in pairwise(speech) if start - stop > 3.9 * RATE]
    assert left_out
    for start, stop in left_out:
        assert not kept[start + RATE : stop - RATE].any()


@pytest.mark.parametrize("vad", DETECTORS)
def test_segments_are_long_where_speech_goes_on(vad):
    samples = np.concatenate([decode_audio(path) for path in sorted(PROMPTS.glob("*.ogg"))[:40]])
    segments = speech_segments(flac(samples), VoiceActivity(vad))
    assert np.mean([segment.duration_seconds for segment in segments[:-1]]) > 20
    assert len(segments) <= np.ceil(len(samples) / RATE / 20)


def test_pieces_are_the_samples_at_their_offsets_to_the_bit(recording):
    encoded, _ = recording
    samples = decode_audio(encoded)
    segments = speech_segments(encoded, VoiceActivity("energy"))
    pieces = list(cut_segments(encoded, segments))
    assert [segment for segment, _ in pieces] == segments
    for segment, piece in pieces:
        start = round(segment.offset_seconds * RATE)
        np.testing.assert_array_equal(
            decode_audio(piece), samples[start : start + round(segment.duration_seconds * RATE)]
        )
    assert list(cut_segments(encoded, segments)) == pieces


def frames(*spans: tuple[float, float], seconds: float) -> np.ndarray:
    speech = np.zeros(round(seconds * 31.25), bool)
    for start, stop in spans:
        speech[round(start * 31.25) : round(stop * 31.25)] = True
    return speech


def cut(speech: np.ndarray, levels: np.ndarray | None = None) -> list[tuple[float, float]]:
    levels = np.zeros(len(speech), np.float32) if levels is None else levels
    return [(start / 31.25, stop / 31.25) for start, stop in segment_frames(speech, levels)]


def test_the_longest_pause_after_twenty_seconds_is_taken():
    speech = frames((0, 10), (11.5, 21), (22, 25), (25.5, 28), (28.3, 50), seconds=50)
    assert cut(speech)[0] == pytest.approx((0, 21.4), abs=0.05)


def test_a_pause_before_twenty_seconds_is_better_than_a_cut_in_speech():
    first, second = cut(frames((0, 8), (8.5, 36), seconds=36))
    assert first == pytest.approx((0, 8.25), abs=0.05)
    assert second == pytest.approx((8.25, 36), abs=0.05)


def test_a_beginning_that_was_heard_late_is_not_cut_off():
    speech, levels = frames((0, 22), (22.6, 40), seconds=40), np.zeros(round(40 * 31.25), np.float32)
    levels[round(22 * 31.25) : round(22.25 * 31.25)] = -40  # the pause is shorter than it was taken for
    (_, stop), (start, _) = cut(speech, levels)
    assert 22 < stop <= start < 22.25


def test_speech_without_a_pause_is_cut_where_it_is_faintest():
    speech, levels = frames((0, 50), seconds=50), np.zeros(round(50 * 31.25), np.float32)
    levels[round(24 * 31.25) : round(24.3 * 31.25)] = -20
    (start, middle), (again, stop) = cut(speech, levels)
    assert (start, stop) == pytest.approx((0, 50), abs=0.05)
    assert middle == again
    assert 24 <= middle <= 24.3


def test_clicks_make_no_segments_and_silence_makes_none():
    assert cut(frames((3, 3.05), seconds=10)) == []
    assert cut(frames(seconds=10)) == []
    assert cut(frames(seconds=0)) == []


@pytest.mark.parametrize("vad", DETECTORS)
@pytest.mark.parametrize("level", [0.0, 1e-3])
def test_nobody_speaks_in_silence_or_hiss(vad, level):
    hiss = (level * np.random.default_rng(0).normal(size=60 * RATE)).astype(np.float32)
    assert speech_segments(flac(hiss), VoiceActivity(vad)) == []


def test_the_network_is_the_file_of_its_own_package():
    package = find_spec("silero_vad")
    published = Path(package.origin).parent / "data" / voice_activity.NETWORK.name
    assert voice_activity.NETWORK.read_bytes() == published.read_bytes()


def test_silero_in_blocks_gives_the_probabilities_of_its_own_package(monkeypatch):
    """The package is asked through its own API, which loads torch and leaves it one thread."""
    import torch

    threads = torch.get_num_threads()
    import silero_vad

    torch.set_num_threads(threads)
    samples, _ = joined(12, 1e-3)
    found = []
    decide = voice_activity._with_hysteresis
    monkeypatch.setattr(
        voice_activity, "_with_hysteresis", lambda p, *bounds: found.append(p) or decide(p, *bounds)
    )
    VoiceActivity("silero")(np.array_split(samples, 37))
    expected = silero_vad.load_silero_vad(sequence=True).audio_forward(samples)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-6)


def test_silero_runs_without_torch():
    program = (
        "import sys, numpy as np; from flax_distil.audio.voice_activity import VoiceActivity; "
        "VoiceActivity('silero')([np.zeros(16_000, np.float32)]); assert 'torch' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=root, check=True)


def test_speech_goes_on_until_its_probability_falls_below_the_smaller_bound():
    probabilities = np.array([0.4, 0.6, 0.4, 0.3, 0.4, 0.5, 0.36], np.float32)
    found = voice_activity._with_hysteresis(probabilities)
    assert found.tolist() == [False, True, True, False, False, True, True]


@pytest.mark.parametrize("vad", DETECTORS)
def test_the_size_of_blocks_does_not_matter(vad):
    samples, _ = joined(12, 1e-3)
    detector = VoiceActivity(vad)
    whole_speech, whole_levels = detector([samples])
    speech, levels = detector(np.array_split(samples, 101))
    np.testing.assert_array_equal(speech, whole_speech)
    np.testing.assert_array_equal(levels, whole_levels)


def test_auto_takes_silero_where_it_is_installed_and_a_missing_one_names_its_command(monkeypatch):
    assert VoiceActivity().name == VoiceActivity("auto").name == "silero"
    assert VoiceActivity("energy").name == "energy"
    monkeypatch.setattr(voice_activity, "find_spec", lambda name: None)
    assert VoiceActivity("auto").name == "energy"
    with pytest.raises(InputError, match=r"run pip install 'flax-distil\[vad\]', or take vad 'energy'"):
        VoiceActivity("silero")


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_blocks_are_the_recording_at_sixteen_kilohertz(rate, tmp_path):
    samples, _ = joined(20, 1e-3)
    path = tmp_path / "recording.flac"
    path.write_bytes(flac(samples[: 40 * rate], rate))
    with open_audio(path) as blocks:
        streamed = np.concatenate(list(blocks))
    whole = decode_audio(path)
    assert abs(len(streamed) - len(whole)) <= 1
    width = min(len(streamed), len(whole))
    np.testing.assert_allclose(streamed[:width], whole[:width], rtol=0, atol=1e-5)


def test_a_recording_that_breaks_off_is_refused_as_a_whole():
    encoded = flac(joined(30, 1e-3)[0])
    with pytest.raises(AudioError, match="lost sync"):
        speech_segments(encoded[: len(encoded) // 2], VoiceActivity("energy"))


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_memory_does_not_grow_with_the_recording(tmp_path, rate):
    """A silence of six minutes between speech: what is held is some blocks and one segment."""
    samples, _ = joined(20, 1e-3)
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        file.write(samples)
        for _ in range(6):
            file.write(np.zeros(60 * rate, np.float32))
        file.write(samples)
    detector = VoiceActivity("energy")
    tracemalloc.start()
    segments = speech_segments(path, detector)
    pieces = sum(1 for _ in cut_segments(path, segments))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pieces == len(segments) > 2
    assert peak < 12e6  # the silence alone would be 23 MB or more
