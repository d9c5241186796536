"""TFRecords, made by TensorFlow from real recordings, read by our loader after the import script.

The script's own environment is built from its own first lines.
"""

import base64
import contextlib
import http.server
import io
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.data.sources.dataset_spec import DatasetSpec
from flax_distil.data.sources.load_datasets import load_table

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "import_tfrecords.py"
EMULATOR = "gcp-storage-emulator==2026.7.19"
"""A server that answers as Google Cloud Storage does."""


def inline_metadata() -> dict:
    block = re.search(r"^# /// script\n((?:#.*\n)+?)# ///$", SCRIPT.read_text(), re.MULTILINE)[1]
    return tomllib.loads("".join(line.removeprefix("#").lstrip(" ") for line in block.splitlines(True)))


def test_its_environment_is_pinned_and_is_what_its_readme_says():
    metadata = inline_metadata()
    pins = dict(re.fullmatch(r"([\w-]+)==([\d.]+)", line).groups() for line in metadata["dependencies"])
    assert pins["numpy"].startswith("1.")
    readme = (SCRIPT.parent / "README.md").read_text()
    version = metadata["requires-python"].removeprefix("==").removesuffix(".*")
    assert f"Python {version} " in readme
    for name, version in pins.items():
        assert f"`{name}` {version}" in readme


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """The environment of the script, and in it an emulator of Google Cloud Storage."""
    folder = tmp_path_factory.mktemp("environment")
    metadata = inline_metadata()
    version = metadata["requires-python"].removeprefix("==").removesuffix(".*")
    python = shutil.which(f"python{version}")
    if python is None:
        pytest.skip(f"the script's own environment needs Python {version}")
    subprocess.run([python, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "pip", "install", "-q", *metadata["dependencies"], EMULATOR]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def run_script(environment: Path, *arguments, limit_kilobytes: int | None = None, **variables: str):
    command = [str(environment / "python"), str(SCRIPT), *map(str, arguments)]
    if limit_kilobytes is not None:
        command = ["bash", "-c", f'ulimit -f {limit_kilobytes}; exec "$@"', "bash", *command]
    variables = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


def encoded(samples, kind: str, subtype: str, rate: int = SAMPLING_RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def binary(*values: bytes):
    return ["bytes_list", [base64.b64encode(value).decode() for value in values]]


@pytest.fixture(scope="module")
def prompts(prompts_dir) -> list[dict]:
    lines = (prompts_dir / "validation" / "metadata.jsonl").read_text().splitlines()[:10]
    return [
        {**row, "bytes": (prompts_dir / "validation" / row["file_name"]).read_bytes()}
        for row in map(json.loads, lines)
    ]


@pytest.fixture(scope="module")
def corpus(environment, prompts, tmp_path_factory):
    """TFRecord files with recordings of every kind, whole and broken; and what should come out."""
    folder = tmp_path_factory.mktemp("tfrecords")
    samples = [decode_audio(prompt["bytes"]) for prompt in prompts]
    integers = [np.round(wave * 32767).astype(np.int16) for wave in samples]
    kinds = [
        prompts[0]["bytes"],  # Opus
        encoded(integers[1], "FLAC", "PCM_16"),
        encoded(integers[2], "WAV", "PCM_16"),
        encoded(samples[3], "WAV", "FLOAT"),
        encoded(samples[4], "FLAC", "PCM_24"),
        encoded(samples[5], "MP3", "MPEG_LAYER_III"),
        encoded(samples[6], "OGG", "VORBIS"),
        encoded(np.stack([integers[7]] * 2, axis=1), "FLAC", "PCM_16", rate=48000),
    ]

    def record(number: int, audio) -> dict:
        return {
            "audio": audio,
            "text": binary(prompts[number]["text"].encode()),
            "name": binary(prompts[number]["file_name"].encode()),
            "speaker": ["int64_list", [number // 3]],
            "loudness": ["float_list", [number / 4]],
            "frames": ["float_list", [1.0, 2.0]],
        }

    good = [record(number, binary(content)) for number, content in enumerate(kinds)]
    bad = [
        record(1, binary(kinds[1][: len(kinds[1]) // 2])),
        record(1, binary(kinds[2][:-3000])),
        record(1, binary(b"this is no audio")),
        record(1, binary(encoded(integers[1][:0], "WAV", "PCM_16"))),
        {"text": binary(b"without audio")},
        {**record(1, binary(kinds[1])), "text": binary(b"\xff\xfe")},
        {**record(1, binary(kinds[1])), "speaker": binary(b"Allison")},
        base64.b64encode(b"no example").decode(),
    ]
    pcm = {
        "as_integers": [record(8, ["int64_list", integers[8].tolist()])],
        "as_floats": [record(9, ["float_list", samples[9].tolist()])],
    }
    files = {"train-0.tfrecord": good[:4] + bad, "train-1.tfrecord.gz": good[4:]}
    files |= {f"{name}.tfrecord": records for name, records in pcm.items()}
    document = {
        str(folder / name): {"compression": "GZIP" if name.endswith("gz") else "", "records": records}
        for name, records in files.items()
    }
    writer = [environment / "python", Path(__file__).with_name("write_tfrecords.py")]
    subprocess.run(writer, input=json.dumps(document), text=True, check=True, capture_output=True)
    wanted = [decode_audio(content) for content in kinds]
    return folder, wanted, {"as_integers": integers[8].astype(np.float32) / 32768, "as_floats": samples[9]}


def load(folder: Path):
    data = load_table(DatasetSpec(name=str(folder), text_column="text", split="train"))
    return data, [data.row(number) for number in range(len(data))]


@pytest.fixture(scope="module")
def imported(environment, corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "corpus"
    flags = ["--id_feature", "name", "--output_dir", out]
    return run_script(environment, corpus[0] / "train-*", *flags), out, flags


@pytest.mark.slow
def test_audio_and_texts_arrive_unchanged(imported, corpus, prompts):
    done, out, _ = imported
    assert done.returncode == 0, done.stderr
    data, rows = load(out)
    assert [row.reference for row in rows] == [prompt["text"] for prompt in prompts[:8]]
    assert [row.sample_id for row in rows] == [prompt["file_name"] for prompt in prompts[:8]]
    assert [row.speaker for row in rows] == [str(number // 3) for number in range(8)]
    assert data.column("loudness") == [number / 4 for number in range(8)]
    assert rows[0].audio["bytes"] == prompts[0]["bytes"]
    for row, wanted in zip(rows, corpus[1], strict=True):
        samples = decode_audio(row.audio["bytes"])
        np.testing.assert_array_equal(samples, wanted)
        assert row.duration_seconds == pytest.approx(len(samples) / SAMPLING_RATE, abs=1e-4)
    assert not data.has_column("frames")
    assert re.search(r"^features left out \(.*\): frames$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_bad_records_are_left_out_and_listed(imported):
    done, out, _ = imported
    assert "8 rows" in done.stdout
    assert "8 records left out" in done.stdout
    report = json.loads((out / "import_report.json").read_text())
    reasons = {record["record"]: record["reason"] for record in report["bad_records"]}
    assert list(reasons) == list(range(4, 12))
    words = ["cannot be decoded", "cannot be decoded", "cannot be read", "no samples", "no feature 'audio'",
             "not UTF-8", "'speaker' is not one int64", "no tf.train.Example"]  # fmt: skip
    for reason, word in zip(reasons.values(), words, strict=True):
        assert word in reason


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["as_integers", "as_floats"])
def test_samples_become_files_without_loss(kind, environment, corpus, prompts, tmp_path):
    file = corpus[0] / f"{kind}.tfrecord"
    refused = run_script(environment, file, "--output_dir", tmp_path / "out")
    assert refused.returncode == 2
    assert "give sampling_rate or sampling_rate_feature" in refused.stderr
    done = run_script(environment, file, "--output_dir", tmp_path / "out", "--sampling_rate", 16000)
    assert done.returncode == 0, done.stderr
    (row,) = load(tmp_path / "out")[1]
    np.testing.assert_array_equal(decode_audio(row.audio["bytes"]), corpus[2][kind])
    assert row.sample_id == f"{kind}.tfrecord:0"


@pytest.mark.slow
def test_finished_shards_are_not_imported_again(imported, environment, corpus):
    _, out, flags = imported
    shards = sorted(out.glob("*.parquet"))
    before = [shard.stat().st_mtime_ns for shard in shards]
    shards[1].unlink()
    (out / f".{shards[1].name}.writing").write_bytes(b"left by a process that was killed")
    done = run_script(environment, corpus[0] / "train-*", *flags)
    assert done.returncode == 0, done.stderr
    assert "train-0.tfrecord.parquet was there: 4 rows" in done.stdout
    assert "8 rows, 0.01 hours in 2 shards" in done.stdout
    after = [shard.stat().st_mtime_ns for shard in shards]
    assert after[0] == before[0]
    assert after[1] > before[1]
    assert sorted(path.name for path in out.iterdir()) == ["import_report.json", *(s.name for s in shards)]


@pytest.mark.slow
def test_a_file_that_was_cut_off_gives_what_it_holds(environment, corpus, tmp_path):
    whole = (corpus[0] / "train-0.tfrecord").read_bytes()
    (tmp_path / "cut.tfrecord").write_bytes(whole[: len(whole) // 3])
    done = run_script(environment, tmp_path / "cut.tfrecord", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "the file is damaged from here on" in done.stdout
    assert 1 <= len(load(tmp_path / "out")[1]) < 4


@pytest.mark.slow
def test_a_full_disk_leaves_only_finished_shards(environment, corpus, tmp_path):
    files = [corpus[0] / "as_integers.tfrecord", corpus[0] / "as_floats.tfrecord"]
    flags = ["--sampling_rate", 16000, "--output_dir", tmp_path / "out"]
    kilobytes = (corpus[0] / "as_floats.tfrecord").stat().st_size // 1024 * 3 // 4
    done = run_script(environment, *files, *flags, limit_kilobytes=kilobytes)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: cannot write to .*: File too large; finished shards are kept, .*\n", done.stderr
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["as_integers.tfrecord.parquet"]
    assert len(load(tmp_path / "out")[1]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train-0.tfrecord", "--audio_feature=sound"], "no record .* the feature 'sound': it has audio"),
        (["train-0.tfrecord", "--text_feature=words"], "has the feature 'words': it has audio, frames, "),
        (["nothing-*"], "no file is called '.*nothing-.*': check the path"),
        (["train-0.tfrecord", "./train-0.tfrecord"], "two files are called 'train-0.tfrecord'"),
        (["notes.txt"], "cannot read '.*notes.txt' as TFRecords of tf.train.Example: corrupted record"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(arguments, sentence, environment, corpus, tmp_path):
    (tmp_path / "notes.txt").write_text("these are no records, however long they are")
    files = [f"{corpus[0]}/{name}" for name in arguments if not name.startswith("--")]
    files = [name.replace(f"{corpus[0]}/notes", f"{tmp_path}/notes") for name in files]
    flags = [name for name in arguments if name.startswith("--")]
    done = run_script(environment, *files, *flags, "--output_dir", tmp_path / "out")
    assert done.returncode == 2
    assert re.fullmatch(rf"error: .*{sentence}.*\n", done.stderr), done.stderr
    assert not (tmp_path / "out").exists()


class InPieces(http.server.BaseHTTPRequestHandler):
    """Passes requests on to ``server.upstream`` and its answers back in pieces of 8 KB.

    The plugin's buffer holds 16 KB. With TLS, as Google's servers speak it, no piece is larger; plain HTTP
    over loopback would overflow it.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        headers = {key: value for key, value in self.headers.items() if key.lower() == "range"}
        request = urllib.request.Request(self.server.upstream + self.path, headers=headers)
        try:
            answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                if key.lower() not in ("connection", "server", "date"):
                    self.send_header(key, value)  # Content-Length too: the plugin asks for it
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while piece := answer.read(8192):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def running_emulator(environment: Path):
    """Yield the emulator's own address and that of the server in front of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        environment / "gcp-storage-emulator",
        "start",
        "--host=127.0.0.1",
        f"--port={port}",
        "--in-memory",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    emulator = subprocess.Popen([*command, "--default-bucket=speech"], **quiet)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), InPieces) as front:
            front.upstream = f"http://127.0.0.1:{port}"
            threading.Thread(target=front.serve_forever, daemon=True).start()
            yield front.upstream, f"http://127.0.0.1:{front.server_port}"
            front.shutdown()
    finally:
        emulator.terminate()
        emulator.wait()


@pytest.mark.slow
def test_files_in_a_bucket_are_read_through_tensorflow_io(environment, corpus, prompts, tmp_path):
    with running_emulator(environment) as (emulator, endpoint):
        for name in ("train-0.tfrecord", "train-1.tfrecord.gz"):
            request = urllib.request.Request(
                f"{emulator}/upload/storage/v1/b/speech/o?uploadType=media&name=corpus/{name}",
                data=(corpus[0] / name).read_bytes(),
                headers={"Content-Type": "application/octet-stream"},
            )
            with urllib.request.urlopen(request) as response:
                assert response.status == 200
        files, out = "gs://speech/corpus/train-*", tmp_path / "out"
        done = run_script(environment, files, "--output_dir", out, CLOUD_STORAGE_EMULATOR_ENDPOINT=endpoint)
        assert done.returncode == 0, done.stderr
    assert [row.reference for row in load(out)[1]] == [prompt["text"] for prompt in prompts[:8]]
    refused = run_script(
        environment, files, "--output_dir", tmp_path / "other", GOOGLE_RUNNING_ON_GCE_CHECK_OVERRIDE="0"
    )
    assert refused.returncode == 2
    assert re.match(r"error: cannot read 'gs://.*credentials.*\n", refused.stderr)
