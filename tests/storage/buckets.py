"""Emulated buckets: servers that libraries have for tests, and a proxy that fails some requests to them."""

import asyncio
import contextlib
import http.client
import json
import random
import re
import socket
import threading
import types
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

import fsspec
import pytest
from etils.epath import backend as epath_backend
from gcp_storage_emulator.server import create_server
from moto.server import ThreadedMotoServer

from flax_distil.storage import bucket_path, transports
from flax_distil.storage.retries import RetryPolicy

QUICK = RetryPolicy(total_seconds=5.0, first_pause_seconds=0.05, largest_pause_seconds=0.1, read_seconds=10.0)

FAULTS = ("500", "503", "cut before", "cut after", "401")
"""An error of the server; no answer to a request that was not done; none to one that was done; no access."""

LARGE_BODIES = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
"""Accepts what aiohttp says about files of more than 1 MB in one request."""

_EXPIRED = b'{"error": {"code": 401, "message": "Invalid Credentials"}}'
_HOP_HEADERS = {"transfer-encoding", "content-length", "connection", "server", "date"}


class FaultyProxy:
    """Passes requests on to a server, of which a part fails; which ones depends on the seed and their order.

    Attributes:
        rate: Part of the requests that fail.
        counts: Number of requests by what happened to them.
    """

    def __init__(self, port: int, *, rate: float = 0.0, seed: int = 0, faults: tuple[str, ...] = FAULTS):
        self.rate, self.counts, self.faults = rate, Counter[str](), faults
        self._port, self._random, self._lock = port, random.Random(seed), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy._handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_any

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        with self._lock:
            fault = self._random.choice(self.faults) if self._random.random() < self.rate else "passed"
            self.counts[fault] += 1
        if fault == "401" and re.search("tensorstore|gcloud-python", request.headers.get("User-Agent", "")):
            # The first takes a refusal for lasting (a save is tried again, a restore ends in a sentence); the
            # second asks for another token, and the anonymous user of an emulator has none.
            fault = "503"
        body = _read_body(request)
        if fault == "401":
            return _answer(request, 401, {"Content-Type": "application/json"}, _EXPIRED)
        if fault.isdigit():
            return _answer(request, int(fault), {}, b"the server is tired")
        if fault == "cut before":
            return _cut(request)
        if request.command == "DELETE" and "upload_id" in request.path:  # the emulator cannot cancel one
            return _answer(request, 499, {}, b"")
        if self._is_outdated(request.path, body):
            return _answer(request, 412, {}, b"")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_HEADERS}
        status, headers, contents = self._forward(request.command, request.path, headers, body)
        if fault == "cut after":
            return _cut(request)
        return _answer(request, status, headers, contents)

    def _is_outdated(self, path: str, body: bytes) -> bool:
        """Check the condition of a write, which the emulator of Google's storage leaves out."""
        query = parse_qs(urlsplit(path).query)
        if "ifGenerationMatch" not in query or "uploadType" not in query:
            return False
        name = query["name"][0] if "name" in query else re.findall(rb'"name": "([^"]+)"', body)[0].decode()
        where = f"{urlsplit(path).path.removeprefix('/upload')}/{quote(name, safe='')}"
        status, _, contents = self._forward("GET", where, {}, b"")
        found = str(json.loads(contents)["generation"]) if status == 200 else "0"
        return found != query["ifGenerationMatch"][0]

    def _forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)) as server:
            server.request(method, path, body=body, headers=headers)
            answer = server.getresponse()
            contents = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_HEADERS}
            if method == "HEAD":
                kept["Content-Length"] = answer.headers.get("Content-Length", "0")
            return answer.status, kept, contents


def _read_body(request: BaseHTTPRequestHandler) -> bytes:
    if "chunked" in request.headers.get("Transfer-Encoding", ""):
        parts = []
        while size := int(request.rfile.readline().split(b";")[0], 16):
            parts.append(request.rfile.read(size))
            request.rfile.readline()
        request.rfile.readline()
        return b"".join(parts)
    return request.rfile.read(int(request.headers.get("Content-Length", 0)))


def _answer(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], contents: bytes) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    if "Content-Length" not in headers:
        request.send_header("Content-Length", str(len(contents)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(contents)


def _cut(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    with contextlib.suppress(OSError):
        request.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def running_gs(patch: pytest.MonkeyPatch, *, rate: float = 0.0, seed: int = 0) -> Iterator[FaultyProxy]:
    """Run an emulated ``gs://bucket`` for gcsfs, tensorstore and google-cloud-storage in this process."""
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    proxy = FaultyProxy(server._api._httpd.server_port, rate=rate, seed=seed)
    try:
        options = {"endpoint_url": proxy.url, "token": "anon"}
        patch.setitem(fsspec.config.conf, "gs", options)
        patch.setitem(fsspec.config.conf, "gcs", options)
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", proxy.url)
        with _fresh_file_systems(patch):
            yield proxy
    finally:
        proxy.close()
        server.stop()


@contextlib.contextmanager
def running_s3(patch: pytest.MonkeyPatch, *, rate: float = 0.0, seed: int = 0) -> Iterator[FaultyProxy]:
    """Run an emulated ``s3://bucket`` for s3fs in this process."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    proxy = FaultyProxy(
        server.get_host_and_port()[1], seed=seed, faults=("500", "503", "cut before", "cut after")
    )
    try:
        patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": proxy.url, "key": "key", "secret": "secret"})
        with _fresh_file_systems(patch):
            proxy._forward("POST", "/moto-api/reset", {}, b"")  # what earlier servers of this process held
            transports.filesystem("s3").mkdir("bucket")
            proxy.rate = rate
            yield proxy
    finally:
        proxy.close()
        server.stop()


@contextlib.contextmanager
def _fresh_file_systems(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each server is another one for the file systems kept by the process."""
    patch.setattr(bucket_path, "POLICY", QUICK)
    quick = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(seconds / 50))
    patch.setattr("gcsfs.retry.asyncio", quick)  # its first pause is more than a second
    caches = (transports._filesystem, epath_backend._FileSystemSpecBackend._get_filesystem)
    for cache in caches:
        cache.cache_clear()
    fsspec.AbstractFileSystem.clear_instance_cache()
    try:
        yield
    finally:
        for cache in caches:
            cache.cache_clear()
        fsspec.AbstractFileSystem.clear_instance_cache()
