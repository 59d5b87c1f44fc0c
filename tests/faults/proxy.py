"""A proxy on loopback that does to a tracking server's clients what networks, ingresses and load balancers do.

    with Proxy(server.uri, faults=drawn(seed=1, rate=0.2)) as proxy:
        MlflowClient(proxy.uri)

A fault is a word: ``lost`` (the server acts, its answer does not arrive), ``reset`` (the connection breaks before the
server sees the request), ``hang`` (no answer at all until the proxy stops), ``other`` (another database answers), or a
status such as ``404`` (a page of the proxy's own, and the server sees nothing).
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

PAGES = ("400", "401", "404", "413", "429", "500")
FAULTS = ("lost", "reset", *PAGES)

Faults = Callable[[int], str | None]
"""Number of a request, from 0 -> its fault, or None."""


def drawn(seed: int, rate: float, kinds: tuple[str, ...] = FAULTS) -> Faults:
    """Faults of all kinds alike, for a share `rate` of the requests."""
    generator, lock = random.Random(seed), threading.Lock()

    def fault(number: int) -> str | None:
        with lock:
            return generator.choice(kinds) if generator.random() < rate else None

    return fault


class Proxy:
    """Stands before `upstream` while the with block runs.

    Args:
        upstream: address of the server.
        faults: what goes wrong; may be replaced at any time.
        other: address of the server that answers for ``other``.
        delay_s: how long each request is held back.

    Attributes:
        requests: (method, path, fault) of every request so far.
    """

    def __init__(
        self, upstream: str, *, faults: Faults = lambda number: None, other: str | None = None, delay_s: float = 0.0
    ) -> None:
        self.upstream, self.faults, self.other, self.delay_s = upstream, faults, other, delay_s
        self.requests: list[tuple[str, str, str | None]] = []
        self._lock = threading.Lock()
        self._now = "", ""
        self._stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))

    @property
    def uri(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def admit(self, method: str, path: str) -> str | None:
        """Count a request; returns its fault."""
        with self._lock:
            self._now = method, path
            fault = self.faults(len(self.requests))
            self.requests.append((method, path, fault))
        if self.delay_s:
            self._stopping.wait(self.delay_s)
        return fault

    def puts_a_file(self) -> bool:
        """Whether the request that asks for its fault uploads an artifact."""
        return self._now[0] == "PUT"

    def creates_a_run(self) -> bool:
        """Whether the request that asks for its fault creates a run."""
        return self._now[1].endswith("runs/create")

    def hang(self) -> None:
        """Return when the proxy stops."""
        self._stopping.wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that gave up


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.admit(self.command, self.path)
            if fault == "reset":
                self.abort()
            elif fault == "hang":
                proxy.hang()
                self.abort()
            elif fault is not None and fault.isdigit():
                page = f"<html><h1>{fault}</h1>nginx</html>".encode()
                self.reply(int(fault), {"Content-Type": "text/html"}, page)
            else:
                answer = self.forward(proxy.other if fault == "other" and proxy.other else proxy.upstream, body)
                if fault == "lost":
                    self.abort()
                else:
                    self.reply(*answer)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def forward(self, upstream: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=60)
            try:
                headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                return answer.status, {"Content-Type": answer.getheader("Content-Type", "")}, answer.read()
            finally:
                connection.close()

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def abort(self) -> None:
            """Close with RST, so that the client sees a broken connection and not the end of an answer."""
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def during(begin: int, end: int, fault: str, otherwise: Faults = lambda number: None) -> Faults:
    """One fault for all requests from number `begin` to before `end`."""
    return lambda number: fault if begin <= number < end else otherwise(number)


def since(fault: str) -> Faults:
    """One fault for all requests."""
    return lambda number: fault
