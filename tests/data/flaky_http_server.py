"""A web server on the loopback interface that answers as badly as it is told to."""

import contextlib
import html
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

FAULTS = ("500", "503", "drop", "short", "stall")


@dataclass
class Behavior:
    """What a server does; may be changed while it runs.

    Attributes:
        failing: Share of the requests that fail, drawn from the seed.
        faults: How they fail: a status, "drop" (no answer), "short" (half of the body, then the line
            is closed) or "stall" (half of the body, then nothing).
        ranges: Whether parts of files are given.
        retry_after: Sent with every status.
        seen: Method, path and range of each request.
        faults_made: How often each fault happened.
    """

    failing: float = 0.0
    faults: Sequence[str] = FAULTS
    ranges: bool = True
    retry_after: str | None = None
    seed: int = 0
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    faults_made: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def fault(self) -> str | None:
        """Draw what happens to a request."""
        with self._lock:
            if self._random.random() >= self.failing:
                return None
            chosen = self._random.choice(list(self.faults))
            self.faults_made[chosen] += 1
            return chosen


class _Handler(BaseHTTPRequestHandler):
    root: Path
    behavior: Behavior
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or the body waits until the head has been acknowledged

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.behavior.seen.append((self.command, path, self.headers.get("Range")))
        fault = "drop" if self.behavior.stopped.is_set() else self.behavior.fault()
        if fault == "drop":
            self.close_connection = True
        elif fault and fault.isdigit():
            self._reply(int(fault), b"out of order")
        elif (self.root / path).is_dir():
            names = sorted(found.name + "/" * found.is_dir() for found in (self.root / path).iterdir())
            listing = "".join(f'<a href="{html.escape(name)}">{name}</a>\n' for name in names)
            self._reply(200, listing.encode(), Content_Type="text/html")
        elif not (self.root / path).is_file():
            self._reply(404, b"no such file")
        else:
            self._file(self.root / path, fault)

    do_HEAD = do_GET

    def _file(self, path: Path, fault: str | None) -> None:
        size = path.stat().st_size
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not part or not self.behavior.ranges:
            self._reply(200, path.read_bytes(), fault)
            return
        first, end = int(part[1]), min(int(part[2]) + 1 if part[2] else size, size)
        if first >= size:
            self._reply(416, b"", Content_Range=f"bytes */{size}")
            return
        with path.open("rb") as file:
            file.seek(first)
            data = file.read(end - first)
        self._reply(206, data, fault, Content_Range=f"bytes {first}-{end - 1}/{size}")

    def _reply(self, status: int, body: bytes, fault: str | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status >= 400 and self.behavior.retry_after:
            self.send_header("Retry-After", self.behavior.retry_after)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body[: len(body) // 2] if fault else body)
        if fault == "stall":
            self.behavior.stopped.wait(60)
        if fault:
            self.close_connection = True


@contextlib.contextmanager
def serving(root: Path, behavior: Behavior | None = None) -> Iterator[str]:
    """Serve the files of a folder; gives the address."""
    behavior = behavior or Behavior()
    handler = type("Handler", (_Handler,), {"root": root, "behavior": behavior})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            behavior.stopped.set()
            server.shutdown()
            thread.join()
