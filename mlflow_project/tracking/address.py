"""Whether a server can listen where it is told to, asked before anything is loaded for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

from rlinf_isaac.ground.errors import Problem


def check_address(host: str, port: int) -> Iterator[Problem]:
    """A problem if nothing can listen at this address now. Port 0 stands for any free one."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with closing(socket.socket(family, socket.SOCK_STREAM)) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as asyncio's servers do
            trial.bind(address)
            trial.listen(1)
    except OSError as error:
        cause = f"cannot listen on {host}:{port}: {error.strerror or error}"
        yield Problem("address", cause, "choose another --host or --port; --port 0 takes any free one")
