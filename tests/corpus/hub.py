"""A Hugging Face Hub of one machine: it speaks to the real client what that needs to list, download and upload.

It holds everything in memory. Files named in `lfs` go through the LFS batch API, as large files do on the Hub; Xet, its
newer protocol, is not spoken (HF_HUB_DISABLE_XET=1). Front matter is refused for what the Hub refuses it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_onlyForThisTest"
READ_TOKEN = "hf_thatMayOnlyRead"
Files = dict[str, bytes]
Answer = tuple[int, dict[str, str], bytes]
KINDS = {"/api/models/": "models", "/api/datasets/": "datasets", "/datasets/": "datasets", "/": "models"}


@dataclass
class Hub:
    """Models and datasets, and what was asked for.

    Attributes:
        models: name -> branch -> path -> content; the commit of a branch is the sha1 of its files.
        gated: names whose files want the token.
        datasets: as `models`.
        private: names that were created as private.
        blobs: sha256 -> content of what was uploaded by LFS.
        asked: (method, path) of each request.
        status: answer everything with this, if it is not 0.
        stalls: a file of which only one half is sent, until the client is gone or `release` is set.
        stalled: set when that half was sent.
    """

    models: dict[str, dict[str, Files]]
    gated: set[str] = field(default_factory=set)
    datasets: dict[str, dict[str, Files]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    blobs: Files = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    status: int = 0
    url: str = ""
    stalls: str = ""
    stalled: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def commit(self, name: str, revision: str, kind: str = "models") -> str:
        files = getattr(self, kind)[name][revision]
        return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()

    def files(self, name: str, revision: str, kind: str = "models") -> Files | None:
        for each, files in getattr(self, kind)[name].items():
            if revision in (each, self.commit(name, each, kind)):
                return files
        return None

    def environment(self, home: object, token: str | None = TOKEN) -> dict[str, str]:
        """The variables with which the client talks to this hub, and keeps what it downloads below `home`."""
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        return own | ({"HF_TOKEN": token} if token else {})


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = hub.status, {}, b""
            if not status:
                status, headers, body = _answer(hub, self.command, path, self.headers, sent)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if hub.stalls and path.endswith(hub.stalls):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                hub.stalled.set()
                hub.release.wait()
                self.close_connection = True
                return
            self.wfile.write(body)

        do_HEAD = do_POST = do_PUT = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        hub.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(hub: Hub, method: str, path: str, headers: Mapping[str, str], sent: bytes) -> Answer:
    token = (headers.get("Authorization") or "").removeprefix("Bearer ")
    match path:
        case "/api/whoami-v2":
            return _whoami(token)
        case "/api/validate-yaml":
            return _validate(json.loads(sent)["content"])
        case "/api/repos/create":
            return _create(hub, json.loads(sent), token)
    if path.startswith("/lfs/"):
        oid = path.removeprefix("/lfs/")
        assert hashlib.sha256(sent).hexdigest() == oid
        hub.blobs[oid] = sent
        return 200, {}, b""
    if path.endswith(".git/info/lfs/objects/batch"):
        return _lfs_batch(hub, json.loads(sent))
    prefix = next(prefix for prefix in KINDS if path.startswith(prefix))
    kind, parts = KINDS[prefix], path.removeprefix(prefix).split("/")
    name, verb, rest = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "", parts[3:]
    if name not in getattr(hub, kind):
        return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."}, b""
    if prefix.startswith("/api/"):
        if method == "POST":
            if token != TOKEN:
                return _json({"error": "You are not allowed to write"}, 403)
            return _write(hub, name, verb, "/".join(rest), sent)
        if verb == "refs":
            branches = hub.models[name]
            refs = [{"name": each, "ref": f"refs/heads/{each}", "targetCommit": "0" * 40} for each in branches]
            return _json({"branches": refs, "converts": [], "tags": []})
    return _read(hub, kind, prefix, name, verb, rest, token)


def _read(hub: Hub, kind: str, prefix: str, name: str, verb: str, rest: list[str], token: str) -> Answer:
    about_all = prefix.startswith("/api/") and verb in ("revision", "")
    if about_all:
        files = hub.files(name, "/".join(rest) or "main", kind)
    else:
        files = hub.files(name, rest[0], kind) if rest else None
    if files is None:
        return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b""
    if about_all:
        own = getattr(hub, kind)[name]
        commit = hub.commit(name, next(each for each, held in own.items() if held is files), kind)
        return _json({"id": name, "sha": commit, "siblings": [{"rfilename": each} for each in files]})
    if verb == "tree":
        return _json(
            [{"type": "file", "path": each, "size": len(data), "oid": _oid(data)} for each, data in files.items()]
        )
    file = "/".join(rest[1:])
    if name in hub.gated and token != TOKEN:
        return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to {name} is restricted"}, b""
    if file not in files:
        return 404, {"X-Error-Code": "EntryNotFound"}, b""
    return 200, {"ETag": f'"{_oid(files[file])}"', "X-Repo-Commit": rest[0]}, files[file]


def _whoami(token: str) -> Answer:
    if token not in (TOKEN, READ_TOKEN):
        return _json({"error": "Invalid username or password."}, 401)
    role = "write" if token == TOKEN else "read"
    orgs = [{"name": "lab", "roleInOrg": "write"}, {"name": "library", "roleInOrg": "read"}]
    return _json({"type": "user", "name": "ada", "orgs": orgs, "auth": {"accessToken": {"role": role}}})


def _create(hub: Hub, asked: dict[str, Any], token: str) -> Answer:
    name = f"{asked.get('organization') or 'ada'}/{asked['name']}"
    if token != TOKEN or not name.startswith(("ada/", "lab/")):
        return _json({"error": "You are not allowed to create this"}, 403)
    if name in hub.models:
        return _json({"error": "You already created this model repo"}, 409)
    hub.models[name] = {"main": {".gitattributes": b"*.safetensors filter=lfs\n"}}
    if asked.get("private") or asked.get("visibility") == "private":
        hub.private.add(name)
    return _json({"url": f"{hub.url}/{name}"})


def _lfs_batch(hub: Hub, asked: dict[str, Any]) -> Answer:
    objects = []
    for each in asked["objects"]:
        upload = {} if each["oid"] in hub.blobs else {"upload": {"href": f"{hub.url}/lfs/{each['oid']}", "header": {}}}
        objects.append({**each, **({"actions": upload} if upload else {})})
    return _json({"transfer": "basic", "objects": objects})


def _write(hub: Hub, name: str, verb: str, revision: str, sent: bytes) -> Answer:
    branches = hub.models[name]
    if verb == "branch":
        if revision in branches:
            return _json({"error": "Reference already exists"}, 409)
        branches[revision] = dict(branches["main"])
        return _json({})
    if revision not in branches:
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    if verb == "preupload":
        modes = [
            {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular"}
            for each in json.loads(sent)["files"]
        ]
        return _json({"files": [{**each, "shouldIgnore": False} for each in modes]})
    assert verb == "commit", verb
    files = dict(branches[revision])
    for line in sent.splitlines():
        key, value = (item := json.loads(line))["key"], item["value"]
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = hub.blobs[value["oid"]]
        elif key == "deletedFile":
            del files[value["path"]]
    branches[revision] = files
    commit = hub.commit(name, revision)
    return _json({"success": True, "commitOid": commit, "commitUrl": f"{hub.url}/{name}/commit/{commit}"})


def _validate(content: str) -> Answer:
    """As the Hub: the front matter must be YAML, and a ``model-index`` must have what results need."""
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(content, ignore_metadata_errors=False).data.to_dict()
        for each in data.get("model-index", []):
            for result in each["results"]:
                assert result["task"]["type"], "a result without the type of its task"
                assert result["dataset"]["type"], "a result without the type of its dataset"
                assert result["dataset"]["name"], "a result without the name of its dataset"
                assert all(isinstance(metric["value"], int | float) for metric in result["metrics"])
        base = data.get("base_model")
        assert base is None or base.count("/") == 1, "base_model is no model of the Hub"
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        return _json({"errors": [{"message": repr(error)}], "warnings": []}, 400)
    return _json({"errors": [], "warnings": []})


def _json(value: object, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
