"""OpenPI's policy server protocol over websockets, for many clients at once.

The server first sends its metadata. Every binary message of the client is an observation, answered with
``{"actions": (chunk, 7), "noise_key", "policy_timing", "server_timing"}``; both are msgpack (`codec`). A text message
from the server is an error. ``GET /healthz`` answers OK. All this is as in OpenPI, whose clients work unchanged. The
differences are:

- An error is a line with a stable code instead of a traceback. The connection stays open after a refused observation;
  after an internal error it is closed with code 1011, as in OpenPI.
- A client may send ``noise_key`` with an observation. The same observation and key give bitwise the same actions.
- Messages are decoded in threads, large ones (`intake`) one at a time, so that they do not delay other clients.
- The number of objects in a message is checked before decoding (`limits`). A message that is too large closes its
  connection (1009). Refused are connections beyond the limit (503), browsers, which send an Origin (403), and clients
  without the API key if one is set (401).
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from mlflow_project.serving.batcher import Answer, Batcher
from mlflow_project.serving.codec import pack, unpack
from mlflow_project.serving.intake import Intake, Places, large
from mlflow_project.serving.observation import NoiseKey, Request
from mlflow_project.serving.policy import ServedPolicy
from rlinf_isaac.ground.errors import InvalidJob, ObservationError

GRACE_S = 10.0
"""Seconds that a stopping server gets to finish the requests it has accepted."""

Heard = Callable[[Request, Answer, float], None]

logger = logging.getLogger("mlflow_project")


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        batch_wait_s: longest time that a request waits for others, in seconds.
        max_message: most bytes of one message.
        max_connections: most clients at a time.
        api_key: key that clients must send as ``Authorization: Api-Key ...``; None if none is needed.
    """

    batch_wait_s: float = 0.005
    max_message: int = 16 << 20
    max_connections: int = 64
    api_key: str | None = None


class PolicyServer:
    """Serves one policy until `stop` is called.

    Args:
        policy: the policy that answers requests.
        limits: limits of the server; by default `Limits()`.
        heard: called with each answered request, its answer and the seconds that it took; it returns at once.
    """

    def __init__(self, policy: ServedPolicy, limits: Limits | None = None, heard: Heard | None = None) -> None:
        self.policy, self.limits = policy, limits or Limits()
        self._heard = heard
        self._metadata = pack(policy.metadata())
        self._large = large(len(policy.spec.cameras))
        self._seed = secrets.randbits(32)  # noise seed for clients that send no noise_key
        self._numbers = itertools.count()
        self._clients: set[Intake] = set()
        self._busy: set[Intake] = set()
        self._stopping = asyncio.Event()
        self._decoders = ThreadPoolExecutor(2, "decoder"), ThreadPoolExecutor(1, "decoder of large ones")
        self._batcher = Batcher(
            policy.infer,
            max_batch=policy.max_batch,
            wait_s=self.limits.batch_wait_s,
            askers=lambda: len(self._clients),
        )

    async def run(self, host: str, port: int, ready: Callable[[int], None] = lambda port: None) -> None:
        """Listen, call `ready` with the port, and serve until `stop`; then finish accepted requests and close (1001).

        Raises:
            OSError: the server cannot listen at this address.
        """
        server = await serve(
            self._serve,
            host,
            port,
            create_connection=partial(Intake, Places(large=self._large)),  # type: ignore[arg-type]  # a class, but only called
            compression=None,  # it does not make images smaller, and costs milliseconds
            max_size=self.limits.max_message,
            max_queue=1,  # do not read ahead from a client that does not wait for its answers
            origins=[None],
            process_request=self._admit,
            server_header=None,
        )
        batching = asyncio.create_task(self._batcher.run())
        try:
            ready(server.sockets[0].getsockname()[1])
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({stopping, batching}, return_when=asyncio.FIRST_COMPLETED)
            if batching.done():  # unexpected; but then nobody would be answered, and /healthz must not say OK
                batching.result()
            await self._close(server)
        finally:
            server.close()
            batching.cancel()
            for decoder in self._decoders:
                decoder.shutdown(wait=False)

    def stop(self) -> None:
        """Stop accepting connections and requests."""
        self._stopping.set()

    def stop_on_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    def _admit(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Answer a plain HTTP request or refuse a client; returns None if the client may connect."""
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        if self.limits.api_key is not None:
            header = ", ".join(request.headers.get_all("Authorization"))
            expected = f"Api-Key {self.limits.api_key}"
            if not hmac.compare_digest(header.encode(errors="surrogateescape"), expected.encode()):
                return connection.respond(HTTPStatus.UNAUTHORIZED, "Authorization: Api-Key ... is missing or wrong\n")
        if len(self._clients) >= self.limits.max_connections:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Intake)
        if len(self._clients) >= self.limits.max_connections:  # several clients may be admitted at the same time
            await connection.close(CloseCode.TRY_AGAIN_LATER, "too many connections")
            return
        self._clients.add(connection)
        try:
            await self._converse(connection)
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(connection)
            self._busy.discard(connection)

    async def _converse(self, connection: Intake) -> None:
        await connection.send(self._metadata)
        number, previous = next(self._numbers), None
        for call in itertools.count():
            if self._stopping.is_set():
                await connection.close(CloseCode.GOING_AWAY, "the server stops")
                return
            message = await connection.recv()
            self._busy.add(connection)
            began = time.monotonic()
            reply: bytes | str
            try:
                decoding = self._decode(message, (self._seed, number % 2**32, call % 2**32))
                del message  # free the memory while the model works
                try:
                    request = await decoding
                except ObservationError:
                    connection.done(refused=True)
                    raise
                connection.done()
                reply = await self._reply(request, began, previous)
            except InvalidJob as error:
                reply = str(error)
            except Exception:
                logger.exception("internal error in the policy server")
                await connection.send("[internal-error] the server could not answer; its log says why")
                await connection.close(CloseCode.INTERNAL_ERROR, "internal server error")
                return
            await connection.send(reply)
            self._busy.discard(connection)
            previous = time.monotonic() - began

    async def _reply(self, request: Request, began: float, previous: float | None) -> bytes:
        answer = await self._batcher.ask(request)
        timing = {"infer_ms": 1e3 * (time.monotonic() - began), "queue_ms": 1e3 * answer.queue_s}
        if previous is not None:
            timing["prev_total_ms"] = 1e3 * previous
        if self._heard is not None:
            self._heard(request, answer, time.monotonic() - began)
        return pack(
            {
                "actions": answer.actions,
                "noise_key": list(request.noise_key),
                "policy_timing": {"infer_ms": 1e3 * answer.infer_s, "batch": answer.batch},
                "server_timing": timing,
            }
        )

    def _decode(self, message: str | bytes, noise_key: NoiseKey) -> asyncio.Future[Request]:
        """Decode a message in a thread, because decoding and resizing large images would block the event loop."""
        decoder = self._decoders[len(message) > self._large]
        return asyncio.get_running_loop().run_in_executor(decoder, self._parse, message, noise_key)

    def _parse(self, message: str | bytes, noise_key: NoiseKey) -> Request:
        if isinstance(message, str):
            raise ObservationError.of("bad-message", "the message is text", "send msgpack in a binary message")
        return self.policy.spec.parse(unpack(message), noise_key)

    async def _close(self, server: Server) -> None:
        server.close(close_connections=False)
        idle = self._clients - self._busy
        farewells = [asyncio.create_task(client.close(CloseCode.GOING_AWAY, "the server stops")) for client in idle]
        try:
            async with asyncio.timeout(GRACE_S):
                await server.wait_closed()
                await asyncio.gather(*farewells)
        except TimeoutError:
            for client in self._clients:
                client.transport.abort()


def serve_policy(
    policy: ServedPolicy,
    host: str,
    port: int,
    limits: Limits,
    ready: Callable[[int], None] = lambda port: None,
    heard: Heard | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is called with the port once clients can connect; `heard` as of
    `PolicyServer`.

    Raises:
        InvalidJob: the server cannot listen at this address.
    """

    async def main() -> None:
        server = PolicyServer(policy, limits, heard)
        server.stop_on_signals()
        await server.run(host, port, ready)

    try:
        asyncio.run(main())
    except OSError as error:
        number = error.errno or 0  # negative if the host name could not be resolved
        reason = os.strerror(number) if number > 0 else error.strerror
        cause = f"cannot listen on {host}:{port}: {reason}"
        raise InvalidJob.of("address", cause, "choose another --host or --port") from error
