"""An attack: files and options that nobody in his right mind would give, one verb, and how that must end.

`prepare` edits a copy of what `world.make_world` makes, in the directory in which the verb is then called. What a file
of it would do if anything in it were executed is to make the file `CANARY` there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CANARY = "canary"
Edit = Callable[[Path], object]


@dataclass(frozen=True)
class Attack:
    """One call of the command line.

    Attributes:
        name: for people; begins with the verb.
        words: of the command line.
        prepare: edits the directory beforehand.
        needs: what of the world it takes.
        codes: exit codes that are right.
        environment: variables on top.
    """

    name: str
    words: tuple[str, ...]
    prepare: Edit = lambda root: None
    needs: tuple[str, ...] = ()
    codes: tuple[int, ...] = (2,)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def verb(self) -> str:
        """The verb that is called."""
        return self.words[0]


def write(name: str, content: bytes | str) -> Edit:
    """Put a file in the place of another one."""

    def edit(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return edit


def all_of(*edits: Edit) -> Edit:
    """Several edits, one after the other."""

    def edit(root: Path) -> None:
        for each in edits:
            each(root)

    return edit


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # the name of a socket may have no more than 107 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def _link(target: str) -> Edit:
    return lambda path: path.symlink_to(target)


SPECIAL: dict[str, Edit] = {
    "a pipe": _fifo,
    "a socket": _socket,
    "a directory": Path.mkdir,
    "a link to a device without end": _link("/dev/zero"),
    "a link to a terminal": _link("/dev/tty"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": _link("/nowhere/at/all"),
}
"""What may stand in the place of a file."""


def special(name: str, kind: str) -> Edit:
    """Put such a thing in the place of a file."""

    def edit(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        SPECIAL[kind](path)

    return edit


def crossed(rows: int, columns: int, every: int) -> list[tuple[int, int]]:
    """Pairs of rows and columns, one in `every`, so that each row meets others than the last one did."""
    return [(row, column) for row in range(rows) for column in range(columns) if (row + column) % every == 0]
