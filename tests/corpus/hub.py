"""A Hugging Face Hub of one machine: what its client asks of it to list and to download a model, from memory."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_onlyForThisTest"


@dataclass
class Hub:
    """Models, and what was asked for.

    Attributes:
        models: name -> revision -> path -> content; the commit of a revision is the sha1 of its files.
        gated: names whose files want the token.
        asked: (method, path) of each request.
        status: answer everything with this, if it is not 0.
    """

    models: dict[str, dict[str, dict[str, bytes]]]
    gated: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    status: int = 0
    url: str = ""

    def commit(self, name: str, revision: str) -> str:
        return hashlib.sha1(repr(sorted(self.models[name][revision].items())).encode()).hexdigest()

    def files(self, name: str, revision: str) -> dict[str, bytes] | None:
        for each, files in self.models[name].items():
            if revision in (each, self.commit(name, each)):
                return files
        return None


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            status, headers, body = hub.status, {}, b""
            if not status:
                status, headers, body = _answer(hub, path, self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(hub: Hub, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
    is_api = path.startswith("/api/models/")
    parts = path.removeprefix("/api/models/" if is_api else "/").split("/")
    name, verb, rest = "/".join(parts[:2]), *(["", ""] if len(parts) < 4 else [parts[2], parts[3:]])
    if name not in hub.models:
        return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."}, b""
    if is_api and verb == "revision":
        files = hub.files(name, "/".join(rest))
    else:
        files = hub.files(name, rest[0]) if rest else None
    if files is None:
        return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b""
    if is_api and verb == "revision":
        commit = hub.commit(name, next(each for each, held in hub.models[name].items() if held is files))
        info = {"id": name, "sha": commit, "siblings": [{"rfilename": each} for each in files]}
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
    if is_api and verb == "tree":
        tree = [{"type": "file", "path": each, "size": len(data), "oid": _oid(data)} for each, data in files.items()]
        return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
    file = "/".join(rest[1:])
    if name in hub.gated and authorization != f"Bearer {TOKEN}":
        return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to {name} is restricted"}, b""
    if file not in files:
        return 404, {"X-Error-Code": "EntryNotFound"}, b""
    return 200, {"ETag": f'"{_oid(files[file])}"', "X-Repo-Commit": rest[0]}, files[file]


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
