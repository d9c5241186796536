"""Fixtures of every room: real checkpoints, real speech, a toy teacher, a Hub, flawed files, full disks."""

import contextlib
import json
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flax_distil.audio.constants import SAMPLING_RATE
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.parallel.config import ParallelConfig
from flax_distil.parallel.make_partitioner import join_local_devices
from tests.checkpoints.hub_server import Hub, retry_at_once, running_hub, use_endpoint
from tests.real_checkpoints import CHECKPOINTS, ensure_checkpoints
from tests.toys import write_teacher


@contextlib.contextmanager
def _limited_files(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def limited_files() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """Within the context that it gives no file can grow beyond so many bytes, as on a disk that is full."""
    return _limited_files


@pytest.fixture(scope="session")
def tiny_en_dir() -> Path:
    """OpenAI's Whisper tiny.en as a Hugging Face folder."""
    ensure_checkpoints(("tiny.en",))
    return CHECKPOINTS / "whisper-tiny.en"


@pytest.fixture(scope="session")
def base_dir() -> Path:
    """OpenAI's multilingual Whisper base as a Hugging Face folder."""
    ensure_checkpoints(("base",))
    return CHECKPOINTS / "whisper-base"


@pytest.fixture(scope="session")
def prompts_dir() -> Path:
    """The recorded prompts, with splits train and validation."""
    return Path(__file__).parent.parent / "examples" / "asterisk_prompts"


@pytest.fixture(scope="module")
def teacher(tiny_en_dir, tmp_path_factory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "toy.en", tiny_en_dir)


@pytest.fixture(scope="module")
def one_partitioner() -> Iterator[None]:
    """Let all labelling and all evaluations have one partitioner, whose programs are compiled once."""
    partitioner = join_local_devices(ParallelConfig())
    with pytest.MonkeyPatch.context() as patch:
        for room in ("evaluation", "pseudo_labeling"):
            patch.setattr(f"flax_distil.{room}.job.join_local_devices", lambda _: partitioner)
        yield


@pytest.fixture(scope="module")
def flawed(prompts_dir, tmp_path_factory) -> Path:
    """Three prompts (one without a reference), a file that is no audio, and one of 31 s."""
    folder = tmp_path_factory.mktemp("flawed")
    lines = (prompts_dir / "validation" / "metadata.jsonl").read_text().splitlines()
    texts = {row["file_name"]: row["text"] for row in map(json.loads, lines)}
    rows = []
    for name in ("conf-full", "all-circuits-busy-now", "agent-user"):
        samples_W = decode_audio(prompts_dir / "validation" / f"{name}.ogg")
        soundfile.write(folder / f"{name}.wav", samples_W, SAMPLING_RATE)
        rows.append({"audio": f"{name}.wav", "text": texts[f"{name}.ogg"], "speaker": 7})
    rows[2]["text"] = None
    (folder / "broken.wav").write_bytes(b"this is not audio")
    soundfile.write(folder / "long.wav", np.zeros(31 * SAMPLING_RATE, np.float32), SAMPLING_RATE)
    rows[1:1] = [{"audio": f"{name}.wav", "text": "Hello.", "speaker": 8} for name in ("broken", "long")]
    path = folder / "flawed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub on the loopback interface, in place of the real one."""
    with running_hub() as served:
        use_endpoint(monkeypatch, served.endpoint)
        # It speaks the protocol that every Hub speaks, not Xet's own store.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        retry_at_once(monkeypatch)
        yield served


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems can be mounted by root only")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
