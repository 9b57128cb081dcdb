"""A stand-in of the model hub: a real HTTP server on 127.0.0.1 that speaks what `huggingface_hub` asks for.

    with fake_hub.serve({"owner/name": folder}) as hub:
        ... a process or library with HF_ENDPOINT=hub.url ...

Faults are set per repository (`hub.gated`, `hub.private`) or per file (`hub.break_after`): the first answer with that
file ends after so many bytes, and what the client then asks for stands in `hub.requests`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None


@dataclass
class FakeHub:
    """What the server knows; a test may change it while it runs."""

    repositories: Mapping[str, Path]
    url: str = ""
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    break_after: dict[str, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def commit(self, name: str) -> str:
        return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()

    def files(self, name: str) -> dict[str, Path]:
        folder = self.repositories[name]
        return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def downloads(self, file_name: str) -> list[Request]:
        return [r for r in self.requests if r.method == "GET" and r.path.endswith(f"/{file_name}")]


@contextlib.contextmanager
def serve(repositories: Mapping[str, Path]) -> Iterator[FakeHub]:
    hub = FakeHub(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *arguments: _Handler(hub, *arguments))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, hub: FakeHub, *arguments: object) -> None:
        self.hub = hub
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Silent: `hub.requests` is the log."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, action, revision = "/".join(parts[2:4]), parts[4], parts[5]
        else:
            name, action, revision = "/".join(parts[:2]), parts[2], parts[3]
        if name not in self.hub.repositories or name in self.hub.private:
            self._error(404, "RepoNotFound")
        elif name in self.hub.gated:
            self._error(403, "GatedRepo")
        elif revision not in ("main", self.hub.commit(name)):
            self._error(404, "RevisionNotFound")
        elif action == "revision":
            siblings = [{"rfilename": file} for file in self.hub.files(name)]
            self._json({"id": name, "modelId": name, "sha": self.hub.commit(name), "siblings": siblings})
        elif action == "tree":
            self._json(
                [
                    {"type": "file", "path": file, "size": path.stat().st_size, "oid": self._etag(path)}
                    for file, path in self.hub.files(name).items()
                ]
            )
        else:
            self._file(name, "/".join(parts[4:]), body)

    def _file(self, name: str, file_name: str, body: bool) -> None:
        path = self.hub.files(name).get(file_name)
        if path is None:
            self._error(404, "EntryNotFound")
            return
        content = path.read_bytes()
        start = 0
        requested = self.headers.get("Range")
        if requested:
            start = int(requested.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if requested else 200)
        self.send_header("X-Repo-Commit", self.hub.commit(name))
        self.send_header("ETag", f'"{self._etag(path)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            stop = self.hub.break_after.pop(file_name, len(content))
            self.wfile.write(content[start:stop])

    @staticmethod
    def _etag(path: Path) -> str:
        return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()

    def _json(self, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
