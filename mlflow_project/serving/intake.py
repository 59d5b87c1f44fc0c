"""What clients send, before it is a message: only a few large messages are in memory at a time.

A message is in memory from its first byte on, several times over while websockets puts it together and msgpack takes it
apart. So a client whose message becomes large waits, not read from, until it has one of a few places. Ordinary
observations stay below that size and never wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode

LARGE = 2 << 20
"""Bytes from which on a message needs a place; two images of 640 x 480 stay below."""
PLACES = 2
SLOW_S = 30.0
"""How long a message may keep a place, from when it gets it until it is decoded; then its connection is closed."""
MAX_FRAGMENTS = 4096
"""Of one message."""
RATE = 32 << 20
"""Bytes per second that are read of a message with a place, in bursts of `BURST`; the time between is the others'."""
BURST = 1 << 20
PENALTY_S = 1.0
"""How long a client whose large message was refused is not read from; taking it up cost as much as an answer."""
PIECE = 1 << 15
"""Bytes read at once: one client does not hold the loop with a thousand small frames."""


class Places:
    """The places for large messages of one server."""

    def __init__(self, count: int = PLACES) -> None:
        self._free = count
        self._waiting: deque[Intake] = deque()

    def take(self, connection: Intake) -> bool:
        """Whether there is a place; without, `connection.admit` is called when there is one."""
        if self._free:
            self._free -= 1
            return True
        self._waiting.append(connection)
        return False

    def give_back(self) -> None:
        """Let the next one in."""
        self._free += 1
        while self._waiting and self._free:
            self._free -= 1
            self._waiting.popleft().admit()

    def forget(self, connection: Intake) -> None:
        """It does not wait any more."""
        self._waiting.remove(connection)


class Intake(ServerConnection):
    """A connection whose large messages take `places`, and are read at `RATE`.

    Whoever receives a message calls `done` when it is decoded. Text messages arrive empty: nobody reads them, and as
    Python strings they would be four times their size.
    """

    def __init__(self, places: Places, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._places = places
        self._arriving, self._unpaced, self._fragments, self._is_text = 0, 0, 0, False
        self._deadline: asyncio.TimerHandle | None = None  # of the message that has a place
        self._held: set[str] = set()  # why nothing is read for now

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read in small pieces, where the event loop lets one say so."""
        if hasattr(transport, "max_size"):
            transport.max_size = PIECE
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take a piece; stop reading if it makes the message large and there is no place."""
        self._arriving += len(data)
        super().data_received(data)
        if self._arriving > LARGE:
            if self._deadline is not None:
                self._pace(len(data))
            elif self._places.take(self):
                self._start()
            else:
                self._held.add("place")
        if self._held:
            self.transport.pause_reading()  # again: websockets resumes when it has handed out the message before

    def process_event(self, event: Any) -> None:
        """Take a frame, the last part of a message or another one."""
        if not isinstance(event, Frame):  # the handshake
            self._arriving = 0
        elif event.opcode not in DATA_OPCODES:
            self._arriving -= len(event.data)
        else:
            self._is_text = event.opcode is Opcode.TEXT or (self._is_text and event.opcode is Opcode.CONT)
            if self._is_text:
                event.data = b""
            self._fragments = 0 if event.fin else self._fragments + 1
            if self._fragments == MAX_FRAGMENTS:
                self._refuse(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            if event.fin:
                self._arriving = 0
            if event.fin and self._deadline is not None:
                self._held.add("decoder")
        super().process_event(event)

    def connection_lost(self, error: Exception | None) -> None:
        """Leave the place, or the queue for it."""
        if "place" in self._held:
            self._places.forget(self)
        self.done()
        super().connection_lost(error)

    def admit(self) -> None:
        """There is a place now: read on."""
        self._start()
        self._release("place")

    def done(self, refused: bool = False) -> None:
        """The message was decoded, or refused, and is not kept."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._places.give_back()
            self.loop.call_later(PENALTY_S if refused else 0, self._release, "decoder")

    def _pace(self, size: int) -> None:
        self._unpaced += size
        if self._unpaced > BURST:
            self._held.add("pace")
            self.loop.call_later(self._unpaced / RATE, self._release, "pace")
            self._unpaced = 0

    def _release(self, reason: str) -> None:
        self._held.discard(reason)
        if not self._held and not self.recv_messages.paused:  # else websockets resumes itself
            self.transport.resume_reading()

    def _start(self) -> None:
        late = CloseCode.POLICY_VIOLATION, "the message took too long"
        self._deadline = self.loop.call_later(SLOW_S, self._refuse, *late)

    def _refuse(self, code: CloseCode, cause: str) -> None:
        self._refusing = asyncio.create_task(self._fail(code, cause))

    async def _fail(self, code: CloseCode, cause: str) -> None:
        """Close, without waiting for the rest of a message; `close` does."""
        with suppress(ConnectionClosed):
            async with self.send_context():
                self.protocol.fail(code, cause)
                self._held.clear()
                self.transport.resume_reading()  # what comes is thrown away, as is what has come
                self.done()
