"""Files on servers that fail arrive whole; those that cannot be read end in one sentence."""

import io
import random
import sys

import pytest
from fsspec.registry import _registry

from flax_distil.core.errors import InputError
from flax_distil.storage import remote_files as remote
from flax_distil.storage import transports
from flax_distil.storage.remote_files import RemoteFile, expand, read_bytes
from flax_distil.storage.retries import DEFAULT_POLICY, RetryPolicy, SourceError, SourceMissingError
from tests.clock import Clock
from tests.data.flaky_http_server import Behavior, serving

QUICK = RetryPolicy(
    total_seconds=60.0, first_pause_seconds=0.01, largest_pause_seconds=0.02, read_seconds=0.3
)
BRIEF = RetryPolicy(total_seconds=0.5, first_pause_seconds=0.1, largest_pause_seconds=0.2, read_seconds=0.2)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Pauses between requests take no time; all other time does not count."""
    made = Clock()
    monkeypatch.setattr("flax_distil.storage.retries.time", made)
    return made


@pytest.fixture
def content(tmp_path, monkeypatch) -> bytes:
    """A file of many blocks, served as ``file.bin``."""
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1 << 12)
    data = random.Random(0).randbytes(100_001)
    (tmp_path / "file.bin").write_bytes(data)
    return data


def test_a_file_is_read_and_sought_in_like_one_on_disk(content, tmp_path):
    with serving(tmp_path) as address, RemoteFile(f"{address}/file.bin", QUICK) as file:
        local = io.BytesIO(content)
        draws = random.Random(1)
        for _ in range(50):
            place, length = draws.randrange(110_000), draws.randrange(9000)
            file.seek(place), local.seek(place)
            assert file.read(length) == local.read(length)
            assert file.tell() == local.tell()
        assert file.seek(-10, io.SEEK_END) == len(content) - 10
        assert file.read(100) == content[-10:]


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole"])
def test_three_of_ten_requests_failing_change_no_byte(content, tmp_path, ranges):
    behavior = Behavior(failing=0.3, seed=3, ranges=ranges)
    with serving(tmp_path, behavior) as address:
        for _ in range(2 if ranges else 12):
            assert read_bytes(f"{address}/file.bin", QUICK) == content
    assert sum(behavior.faults_made.values()) >= 3
    if ranges:
        assert set(behavior.faults_made) == set(behavior.faults)


def test_a_server_without_ranges_is_asked_for_the_file_once(content, tmp_path):
    behavior = Behavior(ranges=False)
    with serving(tmp_path, behavior) as address, RemoteFile(f"{address}/file.bin", DEFAULT_POLICY) as file:
        file.seek(90_000)
        assert file.read(50) == content[90_000:90_050]
        file.seek(5)
        assert file.read(50) == content[5:55]
    assert len(behavior.seen) == 2  # the attempt at a part, and the file


def test_what_lies_before_the_place_is_not_read(content, tmp_path):
    behavior = Behavior()
    with serving(tmp_path, behavior) as address, RemoteFile(f"{address}/file.bin", DEFAULT_POLICY) as file:
        file.seek(50_000)
        file.read(10)
    assert [part for _, _, part in behavior.seen] == ["bytes=49152-53247"]


def test_a_file_that_changes_while_it_is_read_is_told(content, tmp_path):
    with serving(tmp_path) as address, RemoteFile(f"{address}/file.bin", QUICK) as file:
        file.read(10)
        (tmp_path / "file.bin").write_bytes(content + b"more")
        file.seek(50_000)
        with pytest.raises(SourceError, match="its size changed from 100001 to 100005 bytes"):
            file.read(10)


def test_empty_files_are_empty(tmp_path):
    (tmp_path / "empty").touch()
    with serving(tmp_path) as address:
        assert read_bytes(f"{address}/empty", QUICK) == b""


@pytest.mark.parametrize("fault", ["503", "drop", "short", "stall"])
def test_a_server_that_never_answers_is_given_up_in_one_sentence(content, tmp_path, clock, fault):
    behavior = Behavior(failing=1.0, faults=[fault])
    with serving(tmp_path, behavior) as address, pytest.raises(SourceError) as caught:
        read_bytes(f"{address}/file.bin?signature=secret", BRIEF)
    assert clock.seconds == pytest.approx(0.5)
    message = str(caught.value)
    assert message.startswith(f"cannot read {address}/file.bin: ")
    assert "source_retry_seconds" in message
    assert "secret" not in message
    assert "\n" not in message
    assert len(behavior.seen) > 3


def test_a_server_that_comes_back_ends_the_waiting(content, tmp_path, clock):
    class Restarted(Behavior):
        def fault(self) -> str | None:
            self.failing = float(len(self.seen) <= 8)
            return super().fault()

    behavior = Restarted(faults=["503"])
    with serving(tmp_path, behavior) as address, RemoteFile(f"{address}/file.bin", DEFAULT_POLICY) as file:
        assert file.read(100) == content[:100]
    assert len(behavior.seen) == 9


def test_the_pause_that_a_server_asks_for_is_kept(content, tmp_path, clock):
    behavior = Behavior(failing=1.0, faults=["429"], retry_after="20")
    policy = RetryPolicy(total_seconds=50.0)
    with serving(tmp_path, behavior) as address, pytest.raises(SourceError, match="answered 429"):
        read_bytes(f"{address}/file.bin", policy)
    assert (len(behavior.seen), clock.seconds) == (4, 50.0)


@pytest.mark.parametrize(
    ("fault", "message"), [("403", "no permission"), ("401", "no permission"), ("400", "answered 400")]
)
def test_a_refusal_is_not_repeated(content, tmp_path, fault, message):
    behavior = Behavior(failing=1.0, faults=[fault])
    with serving(tmp_path, behavior) as address, pytest.raises(SourceError, match=message):
        read_bytes(f"{address}/file.bin", QUICK)
    assert len(behavior.seen) == 1


def test_a_file_that_is_not_there_is_told_from_a_server_that_is_not(tmp_path):
    with serving(tmp_path) as address, pytest.raises(SourceMissingError, match="does not exist; check"):
        read_bytes(f"{address}/lost.bin", QUICK)
    with pytest.raises(SourceError, match="source_retry_seconds") as caught:
        read_bytes(f"{address}/file.bin", BRIEF)  # the server has gone
    assert not isinstance(caught.value, SourceMissingError)
    with pytest.raises(SourceError, match=r"cannot read http://no-such-host\.invalid/x"):
        read_bytes("http://no-such-host.invalid/x", BRIEF)


def test_unknown_kinds_of_address_and_missing_packages_are_told(monkeypatch):
    with pytest.raises(InputError, match="addresses that start with xyz:// cannot be read"):
        read_bytes("xyz://a/b", BRIEF)
    # Other tests may have imported it, and fsspec keeps what it found.
    transports._filesystem.cache_clear()
    monkeypatch.delitem(_registry, "gs", raising=False)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"gs:// needs a package .*pip install gcsfs"):
        read_bytes("gs://a/b", BRIEF)


def test_patterns_are_expanded_in_order(tmp_path):
    for name in ("b.tar", "a.tar", "c.txt", "sub/d.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with serving(tmp_path, Behavior(failing=0.3, seed=1)) as address:
        assert expand(f"{address}/*.tar", QUICK) == [f"{address}/a.tar", f"{address}/b.tar"]
        assert expand(f"{address}/{{b,sub/d}}.tar", QUICK) == [f"{address}/b.tar", f"{address}/sub/d.tar"]
        with pytest.raises(InputError, match="no file matches"):
            expand(f"{address}/*.parquet", QUICK)
    assert expand("gs://x/t-{08..11}.tar", QUICK)[1:3] == ["gs://x/t-09.tar", "gs://x/t-10.tar"]
    assert expand(f"{tmp_path}/**/*.tar", QUICK) == [f"{tmp_path}/{n}.tar" for n in ("a", "b", "sub/d")]
    with pytest.raises(InputError, match="braces do not match"):
        expand("gs://x/t-{08..11.tar", QUICK)
