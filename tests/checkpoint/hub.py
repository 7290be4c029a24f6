"""A Hugging Face hub on loopback: what huggingface_hub asks of one, byte ranges, and a list of what was asked.

Source: https://huggingface.co/docs/hub/api, and the header X-Error-Code that huggingface_hub reads
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

COMMIT = "0123456789abcdef0123456789abcdef01234567"
API = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)(/revision/(?P<revision>[^/?]+))?")
RESOLVE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


class Request(NamedTuple):
    """One request as the server saw it (header names in lower case), and how many bytes of a body it sent."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int


@dataclass
class Hub:
    """Repositories as {id: {file: contents, or a path to them}}, at one commit that `main` and `v1` name.

    `gated` ids want `token`; `cut` names files whose first transfer breaks off after that many bytes; `told` is
    what the hub says of an id besides; `elsewhere` is the address of another server that contents are sent from.
    """

    repositories: dict[str, dict[str, bytes | Path]] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    ranges: bool = True
    elsewhere: str = ""
    gated: set[str] = field(default_factory=set)
    token: str = "hf_good"
    cut: dict[str, int] = field(default_factory=dict)
    broken: int = 0  # a status to answer everything with
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Hub:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def transfers(self) -> list[Request]:
        """The requests for contents of files."""
        return [one for one in self.requests if one.method == "GET" and "/resolve/" in one.path]

    def sent(self) -> int:
        """Bytes of contents of files."""
        return sum(one.sent for one in self.transfers())

    def fetched(self) -> set[str]:
        """The names of the files of which any byte was sent."""
        return {one.path.split("/", 5)[-1] for one in self.transfers() if one.sent}


def part(body: bytes | Path, start: int, stop: int) -> bytes:
    if isinstance(body, bytes):
        return body[start:stop]
    with body.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            status, headers, body = self.content()
            size = len(body) if isinstance(body, bytes) else body.stat().st_size
            start, stop = 0, size
            if status == 200 and with_body and hub.ranges and (asked := self.headers.get("Range")):
                first, last = asked.removeprefix("bytes=").split("-")
                start, stop = int(first), min(size, int(last) + 1) if last else size
                status = 206 if start < stop else 416
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}" if start < stop else f"bytes */{size}"
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(max(stop - start, 0))}.items():
                self.send_header(name, value)
            self.end_headers()
            keep = max(stop - start, 0) if with_body else 0
            if with_body:
                keep = min(keep, hub.cut.pop(self.path.rsplit("/", 1)[-1], keep))
            seen = {name.lower(): value for name, value in self.headers.items()}
            hub.requests.append(Request(self.command, self.path, seen, keep))
            with contextlib.suppress(ConnectionError):  # who asks may hang up
                self.wfile.write(part(body, start, start + keep))
            self.close_connection = with_body and keep < stop - start

        def content(self) -> tuple[int, dict[str, str], bytes | Path]:
            if hub.broken:
                return hub.broken, {}, b""
            path = self.path.split("?")[0]
            asked = API.fullmatch(path) or RESOLVE.fullmatch(path)
            files = hub.repositories.get(asked["id"]) if asked else None
            if not asked or files is None:
                return 404, {"X-Error-Code": "RepoNotFound"}, b""
            if (asked["revision"] or "main") not in ("main", "v1", COMMIT):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b""
            if asked.re is API:  # the list of files of a gated repository is public
                siblings = [{"rfilename": name} for name in files]
                info = {"id": asked["id"], "sha": COMMIT, "siblings": siblings} | hub.told.get(asked["id"], {})
                return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
            if asked["id"] in hub.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
                status = 403 if "Authorization" in self.headers else 401
                return status, {"X-Error-Code": "GatedRepo"}, b""
            body = files.get(asked["file"])
            if body is None:
                return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
            if hub.elsewhere:
                return 302, {"Location": hub.elsewhere + self.path}, b""
            etag = f'"{hashlib.sha256(body if isinstance(body, bytes) else str(body).encode()).hexdigest()}"'
            return 200, {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}, body

    return Handler
