"""A Hugging Face hub on this machine: the requests that huggingface_hub makes, answered from folders.

::

    with serve({"org/model": folder}) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": ...}

A repository at another revision is a key of its own: ``"org/model@v2"``. Weight files are served as LFS files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LFS_SUFFIXES = (".safetensors", ".bin")


@dataclass
class Hub:
    """The running hub.

    Attributes:
        url: what HF_ENDPOINT has to be.
        requests: how often each was asked for: ``"API org/model"``, ``"TREE org/model"``,
            ``"HEAD org/model/config.json"``, ``"GET org/model/config.json"``.
        refuse: repository → status to answer all its requests with (403: gated).
        refuse_files: the same for its files only, without saying that it is gated.
        damage: names of files that are served with one byte changed.
        cut: name of a file → how many of its bytes are sent before the connection ends, each time it is asked for.
        stall: names of files of which half is sent, and then nothing, for as long as the client waits.
        pace: name of a file → seconds between its tenths.
        over: set when the hub closes.
    """

    url: str
    repos: Mapping[str, Path]
    requests: Counter[str] = field(default_factory=Counter)
    refuse: dict[str, int] = field(default_factory=dict)
    refuse_files: dict[str, int] = field(default_factory=dict)
    damage: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    stall: set[str] = field(default_factory=set)
    pace: dict[str, float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def commit(self, repo: str, revision: str = "main") -> str:
        """The commit of a revision: a hash of the folder's content."""
        digest = hashlib.sha1()
        for file in _files(self._folder(repo, revision)):
            digest.update(f"{file.relative_to(self._folder(repo, revision))} {_blob_id(file.read_bytes())}\n".encode())
        return digest.hexdigest()

    def find(self, repo: str, revision: str) -> tuple[Path, str] | None:
        """Folder and commit of a revision, which may itself be a commit."""
        for key in self.repos:
            name, _, branch = key.partition("@")
            commit = self.commit(name, branch or "main") if name == repo else None
            if commit is not None and revision in (branch or "main", commit):
                return self.repos[key], commit
        return None

    def has(self, repo: str) -> bool:
        """Whether there is a repository of this name, at any revision."""
        return any(key.partition("@")[0] == repo for key in self.repos)

    def downloads(self) -> dict[str, int]:
        """How often the content of each file was asked for."""
        return {key.removeprefix("GET "): count for key, count in self.requests.items() if key.startswith("GET ")}

    def _folder(self, repo: str, revision: str) -> Path:
        return self.repos[repo if revision == "main" else f"{repo}@{revision}"]


@contextmanager
def serve(repos: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve folders as hub repositories until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    hub = server.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}", repos)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def environment(home: Path, url: str) -> dict[str, str]:
    """Environment of a process that uses this hub and a cache of its own: the present one, without its HF variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "LONGVU_"))}
    local = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    local["LONGVU_CACHE_DIR"] = str(home / "longvu")
    return {**kept, **local, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _describe(folder: Path, file: Path) -> dict[str, object]:
    content = file.read_bytes()
    entry: dict[str, object] = {"name": file.relative_to(folder).as_posix(), "size": len(content)}
    entry["oid"] = _blob_id(content)
    if file.suffix in _LFS_SUFFIXES:
        entry["sha256"] = hashlib.sha256(content).hexdigest()
    return entry


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def log_message(self, format: str, *arguments: object) -> None:
        """Be quiet."""

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._tree(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[2], match[3])
        else:
            self._error(404, "EntryNotFound")

    def _info(self, repo: str, revision: str) -> None:
        self.hub.requests[f"API {repo}"] += 1
        found = self._find(repo, revision, self.hub.refuse)
        if found is None:
            return
        siblings = []
        for entry in (_describe(found[0], file) for file in _files(found[0])):
            sibling = {"rfilename": entry["name"], "size": entry["size"], "blobId": entry["oid"]}
            if "sha256" in entry:
                sibling["lfs"] = {"sha256": entry["sha256"], "size": entry["size"], "pointerSize": 134}
            siblings.append(sibling)
        self._json({"_id": "0", "id": repo, "modelId": repo, "sha": found[1], "siblings": siblings, "tags": []})

    def _tree(self, repo: str, revision: str) -> None:
        self.hub.requests[f"TREE {repo}"] += 1
        found = self._find(repo, revision, self.hub.refuse)
        if found is None:
            return
        tree = []
        for entry in (_describe(found[0], file) for file in _files(found[0])):
            item = {"type": "file", "path": entry["name"], "size": entry["size"], "oid": entry["oid"]}
            if "sha256" in entry:
                item["lfs"] = {"oid": entry["sha256"], "size": entry["size"], "pointerSize": 134}
            tree.append(item)
        self._json(tree)

    def _file(self, repo: str, revision: str, name: str) -> None:
        self.hub.requests[f"{self.command} {repo}/{name}"] += 1
        if repo in self.hub.refuse_files:
            self._error(self.hub.refuse_files[repo], None)
            return
        found = self._find(repo, revision, self.hub.refuse)
        if found is None:
            return
        file = found[0] / name
        if not file.is_file():
            self._error(404, "EntryNotFound")
            return
        content = file.read_bytes()
        etag = str(_describe(found[0], file).get("sha256", _blob_id(content)))
        if name in self.hub.damage:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._content(name, content, {"ETag": f'"{etag}"', "X-Linked-ETag": f'"{etag}"', "X-Repo-Commit": found[1]})

    def _content(self, name: str, content: bytes, headers: Mapping[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(content) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # a client that was killed
                self._send(name, content[start:])

    def _send(self, name: str, content: bytes) -> None:
        if name in self.hub.cut:
            self.wfile.write(content[: self.hub.cut[name]])
            self.close_connection = True
        elif name in self.hub.stall:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.hub.over.wait()
            self.close_connection = True
        elif name in self.hub.pace:
            step = max(1, len(content) // 10)
            for start in range(0, len(content), step):
                self.wfile.write(content[start : start + step])
                self.wfile.flush()
                self.hub.over.wait(self.hub.pace[name])
        else:
            self.wfile.write(content)

    def _find(self, repo: str, revision: str, refuse: Mapping[str, int]) -> tuple[Path, str] | None:
        """The revision's folder and commit; None after an error was sent instead."""
        if repo in refuse:
            self._error(refuse[repo], "GatedRepo" if refuse[repo] == 403 else None)
            return None
        if not self.hub.has(repo):
            self._error(404, "RepoNotFound")
            return None
        found = self.hub.find(repo, revision)
        if found is None:
            self._error(404, "RevisionNotFound")
        return found

    def _json(self, value: object) -> None:
        self._body(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str | None) -> None:
        self._body(status, b"", {} if code is None else {"X-Error-Code": code, "X-Error-Message": code})

    def _body(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
