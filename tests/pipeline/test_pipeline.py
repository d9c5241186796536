"""The pipeline as a user calls it: every kind of input, results as transformers gives them."""

import functools
import http.server
import itertools
import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import soxr
import torch
import transformers

from flax_distil import FlaxWhisperPipeline, write_transcript
from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.core.errors import InputError
from flax_distil.metrics.hallucination import compression_ratio
from tests.long_recording import long_recording

pytestmark = pytest.mark.integration

SAID = {
    "conf-full": "That conference is full.",
    "agent-user": "Agent log in. Please enter your Agent number followed by the pound key.",
}


@pytest.fixture(scope="module")
def pipeline(tiny_en_dir) -> FlaxWhisperPipeline:
    return FlaxWhisperPipeline(tiny_en_dir, batch_size=2, max_new_tokens=40)


@pytest.fixture(scope="module")
def file(prompts_dir) -> Path:
    return prompts_dir / "validation" / "conf-full.ogg"


@pytest.fixture(scope="module")
def address(file):
    """The address of the recording on a web server of this machine."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(file.parent))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{file.name}"
    server.shutdown()
    server.server_close()


def test_the_package_itself_imports_nothing_heavy():
    script = "import sys, flax_distil; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_every_kind_of_input_gives_the_same_text(pipeline, file, address):
    samples = decode_audio(file)
    inputs = {
        "path": file,
        "name": str(file),
        "bytes": file.read_bytes(),
        "address": address,
        "array": samples,
        "one channel": {"raw": samples[None], "sampling_rate": SAMPLING_RATE},
        "decoder": types.SimpleNamespace(
            get_all_samples=lambda: types.SimpleNamespace(data=samples[None], sample_rate=SAMPLING_RATE)
        ),
        "other rate": {"array": soxr.resample(samples, SAMPLING_RATE, 24_000), "sampling_rate": 24_000},
        "undecoded": {"bytes": file.read_bytes(), "path": None},
    }
    results = pipeline(list(inputs.values()))
    assert dict(zip(inputs, results, strict=True)) == {name: {"text": SAID["conf-full"]} for name in inputs}


def test_a_recording_that_cannot_be_read_is_an_error_in_its_place(pipeline, file, prompts_dir, address):
    stereo = np.zeros((2, SAMPLING_RATE), np.float32)
    given = [file, prompts_dir / "LICENSE", b"", address + ".gone", stereo, 7, "a\0b", str(file)]
    results = pipeline(given)
    assert [result["text"] for result in results] == [SAID["conf-full"], *[""] * 6, SAID["conf-full"]]
    errors = [result.get("error", "") for result in results]
    named = ["LICENSE", "0 bytes", "does not exist", "several channels", "int", "null"]
    assert all(name in error for name, error in zip(named, errors[1:-1], strict=True))
    with pytest.raises(InputError, match="LICENSE"):
        pipeline(prompts_dir / "LICENSE")


def test_a_recording_without_samples_has_no_text_alone_and_in_lists(pipeline, file):
    nothing = np.zeros(0, np.float32)
    assert pipeline(nothing) == {"text": ""}
    assert pipeline([nothing, file]) == [{"text": ""}, {"text": SAID["conf-full"]}]
    assert pipeline(nothing, return_timestamps=True) == {"text": "", "chunks": []}


def test_segments_have_the_fields_of_openai_and_are_written_as_its_files(pipeline, file, tmp_path):
    result = pipeline(file, return_segments=True, return_timestamps="word")
    assert (result["language"], result["duration"]) == ("en", pytest.approx(len(decode_audio(file)) / 16_000))
    [segment] = result["segments"]
    assert list(segment) == [
        "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio",
        "no_speech_prob", "words",
    ]  # fmt: skip
    assert (segment["id"], segment["seek"], segment["text"]) == (0, 0, f" {SAID['conf-full']}")
    assert segment["compression_ratio"] == pytest.approx(compression_ratio(SAID["conf-full"]))
    path = write_transcript(result, tmp_path / "said.srt", highlight_words=True)
    assert path.read_text().count("<u>") == 4
    with pytest.raises(InputError, match="a result without times cannot be written as vtt"):
        write_transcript({"text": "Hello."}, tmp_path / "said.vtt")


def test_an_iterator_is_transcribed_as_it_is_read_and_in_order(pipeline, prompts_dir, caplog):
    files = [prompts_dir / "validation" / f"{name}.ogg" for name in SAID]
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield files[number % 2]

    results = pipeline(endless())
    first = [next(results)["text"] for _ in range(4)]
    assert first == [*SAID.values(), *SAID.values()]
    assert len(taken) < 20
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        assert [next(results)["text"] for _ in range(4)] == first
    assert not [record for record in caplog.records if record.getMessage().startswith("Compiling ")]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_iterator_may_wait_for_each_answer(pipeline, file, batch_size):
    answers: queue.Queue[str] = queue.Queue()
    given: list[int] = []

    def conversation():
        for number in range(3):
            given.append(number)
            yield file
            assert answers.get(timeout=30) == SAID["conf-full"]

    results = pipeline(conversation(), batch_size=batch_size)
    for number in range(3):
        answer = next(results)["text"]
        assert given == list(range(number + 1))  # nothing is taken before the answer
        answers.put(answer)
    assert list(results) == []


def test_digital_silence_has_no_text_and_times_end_with_the_recording(pipeline, file):
    beginning = decode_audio(file)[: round(0.9 * SAMPLING_RATE)]
    for cuts in ({}, {"chunk_length_s": 15.0}):
        silent, short = pipeline(
            [np.zeros(SAMPLING_RATE, np.float32), beginning], return_timestamps=True, **cuts
        )
        assert silent == {"text": "", "chunks": []}
        assert short["text"]
        assert all(0 <= start <= end <= 0.9 for start, end in (c["timestamp"] for c in short["chunks"]))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 0.9, 1.7])
def test_no_time_lies_behind_the_end_in_any_mode(pipeline, prompts_dir, seconds):
    beginning = decode_audio(prompts_dir / "validation" / "agent-user.ogg")[: round(seconds * SAMPLING_RATE)]
    ways = [{"mode": "short"}, {"mode": "sequential"}, {"chunk_length_s": 15.0},
            {"chunk_length_s": 15.0, "chunk_merging": "longest_common_sequence"}]  # fmt: skip
    for way, kind in itertools.product(ways, (True, "word")):
        found = pipeline(beginning, return_timestamps=kind, **way)["chunks"]
        for start, end in (chunk["timestamp"] for chunk in found):
            assert 0 <= start <= (seconds if end is None else end) <= seconds


@pytest.mark.slow
def test_the_text_is_the_same_with_and_without_timestamps_and_at_any_length(tiny_en_dir):
    """A recording of up to 30 s goes on behind the last timestamp of a window that ends early."""
    pipeline = FlaxWhisperPipeline(tiny_en_dir, batch_size=4)
    samples = long_recording(116.0, split="validation")[0]
    slices = [samples[start * SAMPLING_RATE :][: 29 * SAMPLING_RATE] for start in range(0, 116, 29)]
    plain, timed = pipeline(slices), pipeline(slices, return_timestamps=True)
    assert [one["text"] for one in plain] == [one["text"] for one in timed]
    said = sum(len(one["text"].split()) for one in plain)
    once = sum(len(one["text"].split()) for one in pipeline(slices, mode="short"))
    assert said >= once


@pytest.mark.slow
def test_an_assistant_changes_nothing_but_the_speed(pipeline, tiny_en_dir, prompts_dir):
    """The model itself drafts, in short recordings and in long ones."""
    files = [prompts_dir / "validation" / f"{name}.ogg" for name in SAID]
    inputs = [*files, long_recording(40.0)[0]]
    assisted = FlaxWhisperPipeline(tiny_en_dir, assistant_model=tiny_en_dir, batch_size=2, max_new_tokens=40)
    options = {"return_timestamps": True, "temperature": 0.0}
    assert assisted(inputs, **options) == pipeline(inputs, **options)


@pytest.mark.slow
def test_recordings_of_all_lengths_in_one_list(pipeline, file):
    """In chunks: the long one is cut, the short one is a chunk."""
    long = long_recording(40.0)[0]
    results = pipeline([file, long, file], chunk_length_s=15.0, return_language=True)
    assert [result["language"] for result in results] == ["en"] * 3
    assert [result["text"] for result in results[::2]] == [SAID["conf-full"]] * 2
    assert len(results[1]["text"].split()) > 40


def test_options_that_are_unknown_or_do_not_fit_are_refused(pipeline, file, tiny_en_dir):
    with pytest.raises(InputError, match=r"'num_beam' is unknown: expected one of .*num_beams"):
        pipeline(file, num_beam=5)
    with pytest.raises(InputError, match="return_timestamps 'char'"):
        pipeline(file, return_timestamps="char")
    with pytest.raises(InputError, match="English-only"):
        pipeline(file, generate_kwargs={"language": "de"})
    with pytest.raises(InputError, match="chunk_length_s 40"):
        pipeline(file, chunk_length_s=40.0)
    with pytest.raises(InputError, match="inputs are a int"):
        pipeline(7)
    with pytest.raises(InputError, match="nowhere"):
        FlaxWhisperPipeline("./nowhere")


@pytest.mark.slow
def test_results_of_one_window_are_those_of_transformers(pipeline, prompts_dir, tiny_en_dir):
    torch.set_num_threads(2)
    theirs = transformers.pipeline(
        "automatic-speech-recognition",
        model=transformers.WhisperForConditionalGeneration.from_pretrained(tiny_en_dir).eval(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(tiny_en_dir),
        feature_extractor=transformers.WhisperFeatureExtractor(),
    )  # fmt: skip
    recordings = [decode_audio(prompts_dir / "validation" / f"{name}.ogg") for name in SAID]
    generate = {"num_beams": 1, "max_new_tokens": 40, "force_unique_generate_call": True}
    expected = theirs(
        [samples.copy() for samples in recordings], return_timestamps=True, generate_kwargs=generate
    )
    found = pipeline(recordings, return_timestamps=True, mode="short")
    assert found == [result | {"text": result["text"].strip()} for result in expected]


@pytest.mark.slow
def test_short_and_long_recordings_in_one_list_are_as_alone(tiny_en_dir, file, prompts_dir):
    """More long ones than a batch holds, between short ones; each as if it were alone."""
    pipeline = FlaxWhisperPipeline(tiny_en_dir, batch_size=2)
    long = long_recording(45.0)[0]
    cut = long[: SAMPLING_RATE * 35]
    given = [file, long, cut, file, file, prompts_dir / "LICENSE", file, long, *[file] * 3]
    results = list(pipeline(iter(given), return_timestamps=True))
    assert len(results) == len(given)
    short = [result["text"] for result, one in zip(results, given, strict=True) if one is file]
    assert short == [SAID["conf-full"]] * 7
    assert "LICENSE" in results[5]["error"]
    assert results[1] == results[7] == pipeline(long, return_timestamps=True, batch_size=1)
    assert results[1]["chunks"][-1]["timestamp"][1] <= 46.0
    assert results[2]["text"] != results[1]["text"]


@pytest.mark.slow
def test_int8_says_the_same_and_finds_its_words(tiny_en_dir, prompts_dir):
    listener = FlaxWhisperPipeline(tiny_en_dir, dtype="int8", batch_size=1, max_new_tokens=40)
    for name, text in SAID.items():
        result = listener(prompts_dir / "validation" / f"{name}.ogg", return_timestamps="word")
        assert result["text"].strip() == text
        ends = [chunk["timestamp"][1] for chunk in result["chunks"]]
        assert len(ends) == len(text.split())
        assert ends == sorted(ends)


@pytest.mark.slow
def test_words_have_times_in_every_mode(tiny_en_dir):
    pipeline = FlaxWhisperPipeline(tiny_en_dir, batch_size=2)
    long = long_recording(40.0)[0]
    for given, options in ((long[: 20 * SAMPLING_RATE], {}), (long, {}), (long, {"chunk_length_s": 30.0})):
        result = pipeline(given, return_timestamps="word", **options)
        times = [chunk["timestamp"] for chunk in result["chunks"]]
        assert "".join(chunk["text"] for chunk in result["chunks"]).strip() == result["text"]
        assert len(times) > 20
        assert all(0 <= start <= end <= len(given) / SAMPLING_RATE for start, end in times)
        assert times == sorted(times)


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_devices(tiny_en_dir):
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("pipeline_on_eight_devices.py"), tiny_en_dir],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["one"]["short"]) == 9
    assert len(found["one"]["chunked"]["chunks"]) > 3
    assert found["eight"] == found["one"]


@pytest.mark.slow
def test_the_example_of_the_guide_runs(tiny_en_dir, file):
    guide = (Path(__file__).parents[2] / "docs" / "inference.md").read_text()
    code = guide.split("```python\n")[1].split("```")[0]
    code = code.replace('"student"', repr(str(tiny_en_dir))).replace('"talk.mp3"', repr(str(file)))
    lines = code.strip().splitlines()
    scope: dict = {}
    exec("\n".join(lines[:-2]), scope)
    assert eval(lines[-2], scope) == {"text": SAID["conf-full"]}
    [chunk] = eval(lines[-1], scope)["chunks"]
    assert chunk["text"] == f" {SAID['conf-full']}"
    assert chunk["timestamp"][0] == 0.0


@pytest.mark.slow
def test_a_checkpoints_own_language_is_taken_and_a_detected_one_has_a_probability(base_dir, file, tmp_path):
    folder = tmp_path / "french"
    shutil.copytree(base_dir, folder, copy_function=os.symlink)
    settings = json.loads((base_dir / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").write_text(json.dumps(settings | {"language": "french"}))
    hear = FlaxWhisperPipeline(folder, batch_size=1, max_new_tokens=2, return_language=True, temperature=0.0)
    own = hear(file)
    assert own["language"] == "fr"
    assert "language_probability" not in own
    found = hear(file, language="auto", return_language_probabilities=True)
    assert found["language"] == "en"
    assert found["language_probability"] == max(found["language_probabilities"].values()) > 0.5
    assert sum(found["language_probabilities"].values()) == pytest.approx(1.0, abs=1e-4)
