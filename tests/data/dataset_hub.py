"""A Hugging Face Hub on the loopback interface: the part of its protocol that reads data sets."""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


class _Handler(BaseHTTPRequestHandler):
    root: Path
    sent: list[tuple[str, int]]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        routes = {
            rf"/datasets/{REPO}/resolve/[^/]+/(?P<path>.+)": self._file,
            rf"/api/datasets/{REPO}/tree/[^/]+(?:/(?P<path>.*))?": self._tree,
            rf"/api/datasets/{REPO}/paths-info/[^/]+": self._paths_info,
            rf"/api/datasets/{REPO}(?:/revision/[^/]+)?": self._info,
        }
        for pattern, answer in routes.items():
            if match := re.fullmatch(pattern, path):
                named = match.groupdict()
                folder = self.root / named["repo"]
                if not folder.is_dir():
                    break
                answer(folder, named.get("path") or "", body)
                return
        self._refuse("RepoNotFound")

    do_GET = do_HEAD = do_POST = _serve

    def _reply(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, code: str) -> None:
        self._reply(b"{}", status=404, X_Error_Code=code, X_Error_Message=code)

    def _json(self, content: object) -> None:
        self._reply(json.dumps(content).encode(), Content_Type="application/json")

    def _file(self, folder: Path, path: str, _: bytes) -> None:
        if not (folder / path).is_file():
            self._refuse("EntryNotFound")
            return
        data = (folder / path).read_bytes()
        tag = f'"{hashlib.sha1(data).hexdigest()}"'
        headers = {"ETag": tag, "X_Repo_Commit": SHA, "Accept_Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if part:
            end = int(part[2]) + 1 if part[2] else len(data)
            headers["Content_Range"] = f"bytes {part[1]}-{min(end, len(data)) - 1}/{len(data)}"
            data = data[int(part[1]) : end]
        if self.command == "GET":
            self.sent.append((path, len(data)))
        self._reply(data, status=206 if part else 200, **headers)

    def _entry(self, folder: Path, path: Path) -> dict:
        name = path.relative_to(folder).as_posix()
        oid = hashlib.sha1(name.encode()).hexdigest()
        kind = "directory" if path.is_dir() else "file"
        return {"type": kind, "path": name, "oid": oid, "size": path.stat().st_size if path.is_file() else 0}

    def _tree(self, folder: Path, path: str, _: bytes) -> None:
        if not (folder / path).is_dir():
            self._refuse("EntryNotFound")
            return
        deep = dict(parse_qsl(urlsplit(self.path).query)).get("recursive", "").lower() == "true"
        paths = (folder / path).rglob("*") if deep else (folder / path).iterdir()
        self._json([self._entry(folder, found) for found in sorted(paths)])

    def _paths_info(self, folder: Path, _: str, body: bytes) -> None:
        if body.startswith(b"{"):
            names = json.loads(body)["paths"]
        else:
            names = [value for key, value in parse_qsl(body.decode()) if key == "paths"]
        found = [folder / name for name in names if (folder / name).exists()]
        self._json([self._entry(folder, path) for path in found])

    def _info(self, folder: Path, _path: str, _body: bytes) -> None:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        repo = folder.relative_to(self.root).as_posix()
        self._json({"id": repo, "sha": SHA, "siblings": [{"rfilename": name} for name in names], "tags": []})


@contextlib.contextmanager
def running_hub(root: Path, sent: list[tuple[str, int]] | None = None) -> Iterator[str]:
    """Serve the folders ``root/owner/name`` as data sets; gives the address.

    Args:
        root: The folder.
        sent: Receives the path and the number of bytes of every answer with contents of a file.
    """
    handler = type("Handler", (_Handler,), {"root": root, "sent": [] if sent is None else sent})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
