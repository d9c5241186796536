"""A Hugging Face Hub on the loopback interface: the part of its protocol that models and data sets go up by.

Files are really stored, under their SHA-256, and uploads whose bytes do not match the
announced hash are refused. Writing needs the token.
"""

import base64
import contextlib
import dataclasses
import hashlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_loopback"
OWNER = "someone"
_LARGE = (".safetensors", ".bin", ".parquet")
_FAULTS = (500, 503, 429, None)
"""Statuses with which requests fail; None is a connection that ends without an answer."""


@dataclasses.dataclass
class Commit:
    """One commit of a repository: its message and, for each path, the SHA-256 of its file."""

    message: str
    files: dict[str, str]

    @property
    def oid(self) -> str:
        return hashlib.sha1(json.dumps([self.message, self.files], sort_keys=True).encode()).hexdigest()


@dataclasses.dataclass
class Hub:
    """What the server knows: blobs by hash, branches of repositories, requests seen.

    Data sets are repositories called ``datasets/owner/name``. A share of the requests fails in one of several
    ways; uploads of large files are cut in the middle, or not answered.
    """

    endpoint: str = ""
    blobs: dict[str, bytes] = dataclasses.field(default_factory=dict)
    branches: dict[str, dict[str, Commit]] = dataclasses.field(default_factory=dict)
    private: set[str] = dataclasses.field(default_factory=set)
    read_only: set[str] = dataclasses.field(default_factory=set)
    commits: list[Commit] = dataclasses.field(default_factory=list)
    requests: list[str] = dataclasses.field(default_factory=list)
    refuse_commits: bool = False
    failing_requests: int = 0
    failing_share: float = 0.0
    cut_uploads: int = 0
    stalled_uploads: bool = False
    luck: random.Random = dataclasses.field(default_factory=lambda: random.Random(0))

    def file(self, repo: str, path: str, revision: str = "main") -> bytes:
        return self.blobs[self.commit(repo, revision).files[path]]

    def commit(self, repo: str, revision: str) -> Commit:
        branches = self.branches[repo]
        if revision in branches:
            return branches[revision]
        return next(commit for commit in self.commits if commit.oid == revision)

    def store(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest


class _Refusal(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.command == "PUT" and self.hub.cut_uploads:
            self.hub.cut_uploads -= 1
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            self._cut()
            return
        body = self._body()
        while self.command == "PUT" and self.hub.stalled_uploads:
            time.sleep(0.02)
        if self.hub.failing_requests:
            self.hub.failing_requests -= 1
            self._reply({"error": "down for maintenance"}, status=503)
            return
        if self.hub.luck.random() < self.hub.failing_share:
            fault = self.hub.luck.choice(_FAULTS)
            if fault is None:
                self._cut()
            else:
                self._reply({"error": "not now"}, status=fault, headers={"Retry-After": "0"})
            return
        path = path.replace("/api/datasets/", "/api/models/datasets/")
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                try:
                    answer(self, body, *match.groups())
                except _Refusal as refusal:
                    self._reply(
                        {"error": refusal.code}, status=refusal.status, headers={"X-Error-Code": refusal.code}
                    )
                return
        self._reply({"error": f"no route for {self.command} {path}"}, status=404)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(self, content: object, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _cut(self) -> None:
        """End the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _check_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Refusal(401, "Unauthorized")

    def _branches(self, repo: str) -> dict[str, Commit]:
        if repo not in self.hub.branches:
            raise _Refusal(404, "RepoNotFound")
        return self.hub.branches[repo]

    def _commit(self, repo: str, revision: str) -> Commit:
        self._branches(repo)
        try:
            return self.hub.commit(repo, revision)
        except StopIteration:
            raise _Refusal(404, "RevisionNotFound") from None

    def whoami(self, _: bytes) -> None:
        self._check_token()
        self._reply({"type": "user", "name": OWNER, "orgs": []})

    def check_writing(self, _: bytes, repo: str) -> None:
        self._check_token()
        self._branches(repo)
        if repo in self.hub.read_only:
            raise _Refusal(403, "Forbidden")
        self._reply({})

    def create_repo(self, body: bytes) -> None:
        self._check_token()
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        repo = f"datasets/{name}" if wanted.get("type") == "dataset" else name
        answer = {"url": f"{self.hub.endpoint}/{repo}", "name": name, "id": "1"}
        if repo in self.hub.branches:
            self._reply(answer, status=409)
            return
        first = Commit("initial commit", {})
        self.hub.branches[repo] = {"main": first}
        self.hub.commits.append(first)
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.hub.private.add(repo)
        self._reply(answer)

    def validate_card(self, body: bytes) -> None:
        text = json.loads(body)["content"]
        errors = [] if text.startswith("---\n") else [{"message": "a card begins with its metadata"}]
        self._reply({"errors": errors, "warnings": []}, status=400 if errors else 200)

    def create_branch(self, _: bytes, repo: str, branch: str) -> None:
        self._check_token()
        branches = self._branches(repo)
        if branch in branches:
            raise _Refusal(409, "BranchExists")
        branches[branch] = branches["main"]
        self._reply({})

    def preupload(self, body: bytes, repo: str, _revision: str) -> None:
        self._check_token()
        self._branches(repo)
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(body)["files"]
        ]
        self._reply({"files": files})

    def lfs_batch(self, body: bytes, _repo: str) -> None:
        self._check_token()
        objects = []
        for wanted in json.loads(body)["objects"]:
            actions = {"upload": {"href": f"{self.hub.endpoint}/lfs/{wanted['oid']}"}}
            actions["verify"] = {"href": f"{self.hub.endpoint}/lfs/{wanted['oid']}/verify"}
            objects.append({**wanted, "actions": actions})
        self._reply({"transfer": "basic", "objects": objects})

    def lfs_upload(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refusal(400, "HashMismatch")
        self.hub.store(body)
        self._reply({})

    def lfs_verify(self, body: bytes, oid: str) -> None:
        if len(self.hub.blobs.get(oid, b"")) != json.loads(body)["size"]:
            raise _Refusal(422, "SizeMismatch")
        self._reply({})

    def commit_files(self, body: bytes, repo: str, revision: str) -> None:
        self._check_token()
        if self.hub.refuse_commits:
            raise _Refusal(403, "QuotaExceeded")
        parent = self._commit(repo, revision)
        files, message = dict(parent.files), ""
        for entry in map(json.loads, body.splitlines()):
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, parent.oid):
                    raise _Refusal(412, "PreconditionFailed")
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
            elif entry["key"] == "file":
                files[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
            elif value["oid"] not in self.hub.blobs:
                raise _Refusal(400, "LfsObjectMissing")
            else:
                files[value["path"]] = value["oid"]
        commit = Commit(message, files)
        self.hub.branches[repo][revision] = commit
        self.hub.commits.append(commit)
        self._reply({"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{commit.oid}", "commitOid": commit.oid})

    def revision_info(self, _: bytes, repo: str, revision: str = "main") -> None:
        commit = self._commit(repo, revision)
        siblings = [{"rfilename": path} for path in commit.files]
        self._reply({"id": repo, "sha": commit.oid, "siblings": siblings})

    def tree(self, _: bytes, repo: str, revision: str) -> None:
        files = self._commit(repo, revision).files
        entries = []
        for path, digest in files.items():
            size = len(self.hub.blobs[digest])
            entry = {"type": "file", "path": path, "size": size, "oid": digest[:40]}
            if path.endswith(_LARGE):
                entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 130}
            entries.append(entry)
        self._reply(entries)

    def resolve(self, _: bytes, repo: str, revision: str, path: str) -> None:
        commit = self._commit(repo, revision)
        if path not in commit.files:
            raise _Refusal(404, "EntryNotFound")
        digest = commit.files[path]
        headers = {
            "X-Repo-Commit": commit.oid,
            "ETag": f'"{digest if path.endswith(_LARGE) else digest[:40]}"',
        }
        self._reply(self.hub.blobs[digest], headers=headers)


_REPO = r"((?:datasets/)?[^/]+/[^/]+)"
_ROUTES = (
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("GET", rf"/api/models/{_REPO}/auth-check/write", _Handler.check_writing),
    ("POST", r"/api/repos/create", _Handler.create_repo),
    ("POST", r"/api/validate-yaml", _Handler.validate_card),
    ("POST", rf"/api/models/{_REPO}/branch/(.+)", _Handler.create_branch),
    ("POST", rf"/api/models/{_REPO}/preupload/(.+)", _Handler.preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", _Handler.lfs_upload),
    ("POST", r"/lfs/([0-9a-f]{64})/verify", _Handler.lfs_verify),
    ("POST", rf"/api/models/{_REPO}/commit/(.+)", _Handler.commit_files),
    ("GET", rf"/api/models/{_REPO}", _Handler.revision_info),
    ("GET", rf"/api/models/{_REPO}/revision/(.+)", _Handler.revision_info),
    ("GET", rf"/api/models/{_REPO}/tree/([^/]+)", _Handler.tree),
    ("GET HEAD", rf"/{_REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
)


def use_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Do what the variable HF_ENDPOINT does when huggingface_hub is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat failed requests without the pauses that a Hub somewhere else would need."""
    monkeypatch.setattr("flax_distil.checkpoints.hub.retries.PAUSES_SECONDS", (0.01,) * 7)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve an empty Hub while the context lasts."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.stalled_uploads = False
            server.shutdown()
            thread.join()
