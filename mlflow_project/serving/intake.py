"""Limits how many large messages are received at a time, so that clients cannot exhaust the memory.

A message is in memory from its first byte on, in several copies while websockets assembles it and msgpack decodes it.
So the server stops reading from a client whose message becomes large, until the client gets one of a few places.
Ordinary observations stay below this size and never wait.
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
"""A message with more bytes than this needs a place; two images of 640 x 480 are smaller. A policy with more cameras
has a larger limit (`large`)."""
PLACES = 2
"""Number of large messages that are received at a time."""
SLOW_S = 30.0
"""Seconds that a message may keep its place until it is decoded; after that its connection is closed."""
MAX_FRAGMENTS = 4096
"""Most fragments of one message."""
RATE = 32 << 20
"""Bytes per second read of a large message, in bursts of `BURST`, so that other clients get time in between."""
BURST = 1 << 20
PENALTY_S = 1.0
"""Seconds without reading from a client whose large message was refused; receiving it has cost as much as an answer."""
PIECE = 1 << 15
"""Bytes read at once, so that a client with a thousand small frames does not block the event loop."""


def large(cameras: int) -> int:
    """The bytes above which a message with the images of so many cameras needs a place."""
    return max(LARGE, cameras << 20)


class Places:
    """The places for large messages of one server.

    Attributes:
        large: a message with more bytes than this needs a place.
    """

    def __init__(self, count: int = PLACES, large: int = LARGE) -> None:
        self._free, self.large = count, large
        self._waiting: deque[Intake] = deque()

    def take(self, connection: Intake) -> bool:
        """Take a place and return True; if none is free, return False and call `connection.admit` later."""
        if self._free:
            self._free -= 1
            return True
        self._waiting.append(connection)
        return False

    def give_back(self) -> None:
        """Free a place and admit the next waiting connection."""
        self._free += 1
        while self._waiting and self._free:
            self._free -= 1
            self._waiting.popleft().admit()

    def forget(self, connection: Intake) -> None:
        """Remove a connection from the queue."""
        self._waiting.remove(connection)


class Intake(ServerConnection):
    """A connection whose large messages need one of `places` and are read at `RATE`.

    The receiver of a message calls `done` when it is decoded. The content of text messages is dropped, because nobody
    reads it, and as Python strings they would need four times their size.
    """

    def __init__(self, places: Places, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._places = places
        self._arriving, self._unpaced, self._fragments, self._is_text = 0, 0, 0, False
        self._deadline: asyncio.TimerHandle | None = None  # timer of the message that has a place
        self._held: set[str] = set()  # reasons why reading is paused: place, pace, decoder

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read in small pieces, if the transport has a setting for it."""
        if hasattr(transport, "max_size"):
            transport.max_size = PIECE
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Receive a piece; pause reading if the message has become large and no place is free."""
        self._arriving += len(data)
        super().data_received(data)
        if self._arriving > self._places.large:
            if self._deadline is not None:
                self._pace(len(data))
            elif self._places.take(self):
                self._start()
            else:
                self._held.add("place")
        if self._held:
            self.transport.pause_reading()  # every time, as websockets resumes when the previous message is taken

    def process_event(self, event: Any) -> None:
        """Process a frame: count fragments, drop the content of text, and hold the connection until decoding."""
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
        """Give back the place, or leave the queue."""
        if "place" in self._held:
            self._places.forget(self)
        self.done()
        super().connection_lost(error)

    def admit(self) -> None:
        """Resume reading, because the connection has got a place."""
        self._start()
        self._release("place")

    def done(self, refused: bool = False) -> None:
        """Give back the place after the message was decoded or refused."""
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
        if not self._held and not self.recv_messages.paused:  # if paused, websockets resumes reading itself
            self.transport.resume_reading()

    def _start(self) -> None:
        late = CloseCode.POLICY_VIOLATION, "the message took too long"
        self._deadline = self.loop.call_later(SLOW_S, self._refuse, *late)

    def _refuse(self, code: CloseCode, cause: str) -> None:
        self._refusing = asyncio.create_task(self._fail(code, cause))

    async def _fail(self, code: CloseCode, cause: str) -> None:
        """Close the connection without waiting for the rest of the message, unlike `close`."""
        with suppress(ConnectionClosed):
            async with self.send_context():
                self.protocol.fail(code, cause)
                self._held.clear()
                self.transport.resume_reading()  # websockets discards all further data
                self.done()
