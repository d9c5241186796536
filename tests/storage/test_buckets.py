"""Results in buckets: real gcsfs and s3fs against emulators, of whose answers a part fails."""

import contextlib
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from flax_distil.core.errors import InputError
from flax_distil.parallel import compilation_cache
from flax_distil.storage import background_upload, bucket_path
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.line_files import LineWriter, read_lines
from flax_distil.storage.mirror import Mirror
from flax_distil.storage.paths import output_path, remove_tree, upload_folder, write_whole
from flax_distil.storage.retries import RetryPolicy, SourceError, StorageError
from tests.storage.buckets import LARGE_BODIES, FaultyProxy, running_gs, running_s3

pytestmark = LARGE_BODIES


@pytest.fixture(params=["gs", "s3"])
def bucket(request, monkeypatch) -> Iterator[tuple[BucketPath, FaultyProxy]]:
    """An empty bucket, at first without faults."""
    running = {"gs": running_gs, "s3": running_s3}[request.param]
    with running(monkeypatch) as proxy:
        yield BucketPath(f"{request.param}://bucket"), proxy


def test_files_and_folders(bucket):
    root, _ = bucket
    folder = root / "run"
    assert not folder.exists()
    assert not list(folder.iterdir())
    assert not folder.files()
    for name in ("a.json", "data/b-0.parquet", "data/b-1.parquet", "run/run", "deep/er/c.parquet"):
        write_whole(folder / name, name)
    write_whole(root / "runs", "beside it")
    assert (folder.is_dir(), folder.is_file(), (folder / "a.json").is_file()) == (True, False, True)
    assert [path.name for path in folder.iterdir()] == ["a.json", "data", "deep", "run"]
    assert [path.name for path in (folder / "run").iterdir()] == ["run"]
    assert [path.name for path in folder.glob("*.json")] == ["a.json"]
    found = [str(path.relative_to(folder)) for path in folder.glob("*/*.parquet")]
    assert found == ["data/b-0.parquet", "data/b-1.parquet"]
    assert (folder / "a.json").read_text() == "a.json"
    assert (folder / "a.json").size() == 6
    write_whole(folder / "a.json", b"\r\n\x00\xff")
    assert (folder / "a.json").read_bytes() == b"\r\n\x00\xff"
    (folder / "a.json").unlink()
    with pytest.raises(FileNotFoundError):
        (folder / "a.json").read_bytes()
    with pytest.raises(FileNotFoundError):
        (folder / "a.json").size()
    remove_tree(folder)
    assert not folder.exists()
    assert [path.name for path in root.iterdir()] == ["runs"]


def test_one_of_two_creates_a_file(bucket):
    path = bucket[0] / "run.lock"
    assert path.create(b"first")
    assert not path.create(b"second")
    assert path.read_bytes() == b"first"


def test_a_folder_is_complete_only_with_its_last_file(bucket, tmp_path):
    folder = bucket[0] / "model"
    for name in ("config.json", "model.safetensors", "deep/tokenizer.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 1000)
    upload_folder(tmp_path, folder, last=["config.json"])
    assert list(folder.files()) == ["config.json", "deep/tokenizer.json", "model.safetensors"]
    assert (folder / "deep/tokenizer.json").read_bytes() == b"deep/tokenizer.json" * 1000


def test_a_tenth_of_the_requests_fails_and_nothing_is_lost(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(bucket_path, "ONE_REQUEST_BYTES", 1 << 20)
    root, proxy = bucket
    proxy.rate = 0.1
    big = bytes(range(256)) * 24_000  # more than gcsfs sends in one request
    (tmp_path / "big").write_bytes(big)
    (root / "big").upload(tmp_path / "big")
    assert (root / "big").read_bytes() == big
    for number in range(15):
        write_whole(root / f"lines/{number:02d}", f"line {number}")
    assert [path.read_text() for path in (root / "lines").iterdir()] == [f"line {n}" for n in range(15)]
    remove_tree(root / "lines")
    assert not (root / "lines").exists()
    assert sum(proxy.counts.values()) - proxy.counts["passed"] >= 3


def test_a_bucket_that_stays_away_is_named_in_one_sentence(bucket, monkeypatch):
    root, proxy = bucket
    monkeypatch.setattr(bucket_path, "POLICY", RetryPolicy(total_seconds=0.0, read_seconds=0.2))
    proxy.rate, proxy.faults = 1.0, ("503",)
    path = root / "x"
    uses = {"write": lambda: write_whole(path, "text"), "delete": path.unlink, "read": path.read_text}
    for action, use in uses.items():
        with pytest.raises(InputError, match=rf"^cannot {action} \w+://bucket/x: .*same command again once"):
            use()
    with pytest.raises(SourceError, match=r"^cannot read \w+://bucket: "):
        list(root.iterdir())


@pytest.mark.parametrize("status", ["401", "403"])
def test_an_expired_token_is_named_with_the_remedy(status, monkeypatch):
    with running_gs(monkeypatch) as proxy:
        proxy.rate, proxy.faults = 1.0, (status,)
        with pytest.raises(StorageError, match=r"cannot write .*no permission.*auth application-default"):
            write_whole(BucketPath("gs://bucket/x"), "text")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("https://host/folder", "is an address that results are not written to"),
        ("hf://datasets/x", "is an address that results are not written to"),
        ("gs:/folder", "is an address that results are not written to"),
        ("gs://", "is not the address of a folder"),
        ("gs://bucket/../other", "is not the address of a folder"),
        ("gs://bucket/a*", "holds '\\*', a wildcard"),
    ],
)
def test_other_addresses_are_refused(name, sentence):
    with pytest.raises(InputError, match=sentence):
        output_path(name)


def test_compiled_programs_are_kept_in_a_bucket(monkeypatch):
    given = {name: jax.config.values[name] for name in jax.config.values if "cache" in name}
    monkeypatch.setenv(compilation_cache.VARIABLE, "gs://bucket/programs")
    with running_gs(monkeypatch):
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_compilation_cache_max_size", -1)  # a limit needs locks, which buckets lack
        jax_cache.reset_cache()
        try:
            folder = compilation_cache.use_compilation_cache()
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
            jax.jit(lambda x: x @ x + 12345)(jnp.ones((7, 7))).block_until_ready()
            assert any(path.name.endswith("-cache") for path in folder.iterdir())
        finally:
            for name, value in given.items():
                jax.config.update(name, value)
            jax_cache.reset_cache()


def test_a_line_is_in_the_bucket_when_it_is_written_or_soon(monkeypatch):
    monkeypatch.setattr(background_upload, "SHORTEST_PAUSE_SECONDS", 600.0)
    with running_gs(monkeypatch) as proxy:
        path = BucketPath("gs://bucket/run/lines.jsonl")
        write_whole(path, 'first\n{"cut off')
        with LineWriter(path, lambda path: contextlib.nullcontext(), is_synced=True) as writer:
            writer.write("second", "third")
            assert read_lines(path) == ["first", "second", "third"]
        before = sum(proxy.counts.values())
        with LineWriter(path, lambda path: contextlib.nullcontext()) as writer:
            for number in range(1000):
                writer.write(str(number))
        assert read_lines(path)[3:] == [str(number) for number in range(1000)]
        assert sum(proxy.counts.values()) - before < 20


def test_logs_reach_the_bucket_as_they_grow(monkeypatch, caplog):
    monkeypatch.setattr(background_upload, "SHORTEST_PAUSE_SECONDS", 0.05)
    with running_gs(monkeypatch) as proxy:
        folder = BucketPath("gs://bucket/run")
        mirror = Mirror(folder)
        with (mirror.local / "metrics.jsonl").open("w") as file:
            for number in range(3):
                print(number, file=file, flush=True)
                mirror.changed()
                end = time.monotonic() + 60
                while time.monotonic() < end and f"{number}\n" not in (
                    (folder / "metrics.jsonl").read_text() if (folder / "metrics.jsonl").exists() else ""
                ):
                    time.sleep(0.02)
                assert (folder / "metrics.jsonl").read_text().endswith(f"{number}\n")
        proxy.rate, proxy.faults = 1.0, ("403",)
        (mirror.local / "lost").write_text("x")
        mirror.close()  # training has ended well, whatever the bucket says
    assert "no permission" in caplog.text


def test_paths_and_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert output_path("results") == tmp_path / "results"
    assert output_path("GS://bucket/a/") == BucketPath("gs://bucket/a")
    assert str(output_path("s3://bucket") / "a" / "b") == "s3://bucket/a/b"
    assert BucketPath("s3://bucket/a").parent.parent == BucketPath("s3://bucket")
