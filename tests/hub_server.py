"""A local stand-in for the Hugging Face hub: enough of its HTTP API to download and to upload.

Written from what ``huggingface_hub`` asks for. Repositories are dictionaries of file contents;
every request is recorded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """State of the stand-in.

    Attributes:
        repos: Files by repository.
        gated: Repositories that refuse access.
        cut: Bytes after which the next download of a file breaks off, by file.
        broken: Answer everything with status 500.
        refused_uploads: Refuse the content of large files.
        requests: ``"METHOD path"``, with the ``Range`` header where there is one.
        uploads: Large files that arrived, by SHA-256.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    broken: bool = False
    refused_uploads: bool = False
    requests: list[str] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    def fetched(self) -> set[str]:
        """Files whose content was sent."""
        pattern = re.compile(r"GET /[^/]+/[^/]+/resolve/[^/]+/([^ ]+)")
        return {m.group(1) for r in self.requests if (m := pattern.match(r))}


@contextmanager
def run_hub_server() -> Iterator[HubServer]:
    """Run a stand-in on a free port of this machine."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def point_client_at(server: HubServer, monkeypatch: Any, cache: Path) -> None:
    """Let ``huggingface_hub`` talk to a stand-in, as ``HF_ENDPOINT`` does for a new process."""
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        self._dispatch()

    def do_GET(self) -> None:
        self._dispatch()

    def do_POST(self) -> None:
        self._dispatch()

    def do_PUT(self) -> None:
        self._dispatch()

    def _dispatch(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._read_chunks()
        else:
            self.body = self.rfile.read(length)
        path = unquote(urlparse(self.path).path)
        span = self.headers.get("Range")
        self.hub.requests.append(f"{self.command} {path}" + (f" {span}" if span else ""))
        if self.hub.broken:
            self._send({"error": "down for maintenance"}, 500)
            return
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                action(self, *match.groups())
                return
        self._send({"error": f"no such address {path}"}, 404)

    def _read_chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        """The files of a repository; answers with an error and gives ``None`` if it cannot."""
        if repo in self.hub.gated:
            error = {"error": "Access to this model is restricted"}
            self._send(error, 403, X_Error_Code="GatedRepo", X_Error_Message="restricted")
        elif repo not in self.hub.repos:
            self._send({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        elif revision not in ("main", COMMIT):
            self._send({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        else:
            return self.hub.repos[repo]
        return None

    def info(self, repo: str, _: str | None, revision: str | None) -> None:
        files = self._files(repo, revision or "main")
        if files is not None:
            siblings = [{"rfilename": name} for name in files]
            self._send({"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings})

    def tree(self, repo: str, revision: str) -> None:
        files = self._files(repo, revision)
        if files is not None:
            self._send(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
                    for name, data in files.items()
                ]
            )

    def resolve(self, repo: str, revision: str, name: str) -> None:
        files = self._files(repo, revision)
        if files is None:
            return
        if name not in files:
            self._send(b"", 404, X_Error_Code="EntryNotFound")
            return
        data = files[name]
        start = 0
        if span := re.match(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(span.group(1))
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{_etag(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if name in self.hub.cut:
            data = data[: self.hub.cut.pop(name)]
            self.close_connection = True
        self.wfile.write(data[start:])

    def create(self) -> None:
        request = json.loads(self.body)
        owner = request.get("organization") or "me"
        repo = f"{owner}/{request['name']}"
        if repo in self.hub.gated:
            self._send({"error": "You have no rights to create it"}, 403)
            return
        self.hub.repos.setdefault(repo, {})
        self._send({"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})

    def validate(self) -> None:
        self._send({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        files = json.loads(self.body)["files"]
        self._send(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in files
                ],
                "commitOid": COMMIT,
            }
        )

    def batch(self, repo: str) -> None:
        objects = [
            {
                "oid": item["oid"],
                "size": item["size"],
                "actions": {"upload": {"href": f"{self.hub.url}/upload/{item['oid']}"}},
            }
            for item in json.loads(self.body)["objects"]
        ]
        self._send({"transfer": "basic", "objects": objects})

    def put(self, oid: str) -> None:
        if self.hub.refused_uploads:
            self._send(b"", 403, X_Error_Message="quota exceeded")
            return
        self.hub.uploads[oid] = self.body
        self._send(b"")

    def commit(self, repo: str, revision: str) -> None:
        files = self.hub.repos[repo]
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        url = f"{self.hub.url}/{repo}/commit/{COMMIT}"
        self._send({"commitUrl": url, "commitOid": COMMIT, "hookOutput": "", "success": True})


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


_REPO = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("GET", rf"/api/models/{_REPO}(/revision/([^/]+))?", _Handler.info),
    ("GET", rf"/api/models/{_REPO}/tree/([^/]+)", _Handler.tree),
    ("HEAD GET", rf"/{_REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/models/{_REPO}/preupload/([^/]+)", _Handler.preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/upload/([^/]+)", _Handler.put),
    ("POST", rf"/api/models/{_REPO}/commit/([^/]+)", _Handler.commit),
]
