"""Whatever lies in a file, it is heard or refused in one sentence: soon, in little memory, silently."""

import functools
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flax_distil.audio.reading.decoding import audio_duration, decode_audio, open_audio
from flax_distil.audio.reading.errors import AudioError
from tests.audio.malformed_audio import PLAYLISTS, malformed_audio

LONGEST_SECONDS = 10.0
MOST_BYTES = 1 << 30


def check(path: Path, *, replace_damage: bool) -> bool:
    """Read a file in every way, or have it refused in one sentence; tell whether it is heard."""
    begun = time.monotonic()

    def decoded() -> None:
        samples = decode_audio(path, replace_damage=replace_damage)
        assert samples.dtype == np.float32
        assert len(samples)

    def read_in_blocks() -> None:
        with open_audio(path) as blocks:
            for block in blocks:
                assert block.dtype == np.float32

    refusals = [refusal(use) for use in (decoded, read_in_blocks, functools.partial(audio_duration, path))]
    for sentence in filter(None, refusals):
        assert str(path) in sentence
        assert "\n" not in sentence
    assert time.monotonic() - begun < LONGEST_SECONDS
    return refusals[0] is None


def refusal(use: Callable[[], object]) -> str | None:
    """Return the sentence with which something is refused, if it is."""
    try:
        use()
    except AudioError as error:
        return str(error)
    return None


def try_all(folder: Path, seed: int, count: int) -> int:
    """Check that many files and return how many can be heard."""
    heard = 0
    for number, (name, content) in enumerate(malformed_audio(seed, count)):
        path = folder / name
        path.write_bytes(content)
        heard += check(path, replace_damage=number % 2 == 0)
        path.unlink()
    return heard


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a connection is opened")

    monkeypatch.setattr(socket.socket, "connect", refused)


def test_malformed_files_are_heard_or_refused(tmp_path: Path, no_connections: None) -> None:
    assert 0 < try_all(tmp_path, seed=0, count=40) < 40


@pytest.mark.slow
def test_many_malformed_files_are_heard_or_refused_in_little_memory(tmp_path: Path) -> None:
    code = (
        "import logging, resource, sys\n"
        "from pathlib import Path\n"
        "from tests.audio.test_malformed_audio import MOST_BYTES, try_all\n"
        "logging.disable()\n"
        "try_all(Path(sys.argv[1]), seed=1, count=13)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))\n"
        "print(try_all(Path(sys.argv[1]), seed=2, count=1000))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 100 < int(done.stdout) < 900
    assert done.stderr == ""


@pytest.mark.parametrize("suffix", PLAYLISTS)
def test_nothing_that_a_playlist_names_is_opened(suffix: str, tmp_path: Path) -> None:
    secret = Path(__file__).parents[2] / "examples" / "asterisk_prompts" / "train" / "agent-incorrect.ogg"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        targets = [f"http://127.0.0.1:{server.getsockname()[1]}/a.ts", str(secret), f"file:{secret}"]
        for target in targets:
            content = PLAYLISTS[suffix].format(target=target).encode()
            for name in (f"list.{suffix}", "list.wav", "list.mp3", "list"):
                path = tmp_path / name
                path.write_bytes(content)
                with pytest.raises(AudioError, match="it is text, not audio"):
                    decode_audio(path)
                with pytest.raises(AudioError):
                    audio_duration(path)
                with pytest.raises(AudioError), open_audio(path) as blocks:
                    list(blocks)
            with pytest.raises(AudioError, match="it is text, not audio"):
                decode_audio(content)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("suffix", PLAYLISTS)
def test_no_reader_follows_a_playlist_even_where_it_does_not_look_like_text(suffix: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        content = PLAYLISTS[suffix].format(target=address).encode() + b"#\x00\x01\x02\n" * 10
        with pytest.raises(AudioError, match="cannot read"):
            decode_audio(content)
        for format in ("hls", "dash", "concat", "sdp", "rtsp", "lavfi"):
            with pytest.raises(AudioError, match="cannot read"):
                decode_audio(content, format=format)
        with pytest.raises(BlockingIOError):
            server.accept()
