"""Files that only grow, line by line, and survive kill -9: episodes, metrics and the journals.

A line counts once its line feed is in the file. A writer that is killed leaves whole lines and at most one torn one
behind them, which no reader takes for a line; `read` and `cut` remove it, so that the next line does not begin in its
middle. Readers may follow a file while its writer is at work (`follow`). A file has one writer at a time: its writers
see to that by a lock of their own (`atomic.locked`, the journal's ``flock``), or by a name that no other writer has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from rlinf_isaac.ground.atomic import write_file


def open_to_append(path: str | Path, *, new: bool = False) -> int:
    """Open a file for `write`, and make it where it is missing. Its mode follows the umask.

    Args:
        path: the file.
        new: the file must not exist yet.

    Returns:
        The descriptor, which the caller closes.

    Raises:
        FileExistsError: the file exists, and a `new` one was asked for.
    """
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | (os.O_EXCL if new else 0), 0o666)


def write(descriptor: int, *lines: str, durable: bool = True) -> None:
    """Append lines to an open file: all of them, or none.

    Args:
        descriptor: of `open_to_append`.
        lines: texts without a line feed; JSON writes one within a string as an escape.
        durable: the lines are on disk when this returns (fsync), and survive a crash of the machine. Without it they
            survive only the death of this process.

    Raises:
        OSError: the disk refused; nothing of the lines stays in the file.
    """
    size = os.fstat(descriptor).st_size
    data = memoryview("".join(f"{line}\n" for line in lines).encode())
    try:
        while data:  # a disk that is nearly full takes a part, and refuses the rest
            data = data[os.write(descriptor, data) :]
        if durable:
            os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def append(path: str | Path, *lines: str) -> None:
    """Append lines durably to a file, which is made where it is missing. Raises OSError as `write`."""
    descriptor = open_to_append(path)
    try:
        write(descriptor, *lines)
    finally:
        os.close(descriptor)


def follow(path: str | Path, offset: int = 0) -> Iterator[tuple[str, int]]:
    """The complete lines that begin at byte `offset` or later, each with the offset behind it, where the next begins.

    Raises:
        FileNotFoundError: there is no such file.
        UnicodeDecodeError: a complete line is not UTF-8.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:  # only LF ends a line of bytes; text would also end at U+2028 inside a JSON string
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield line[:-1].decode(), offset


def cut(path: str | Path) -> None:
    """Cut a torn last line off the file. Only its writer, or the heir of a dead one, may do this."""
    data = Path(path).read_bytes()
    complete = data.rfind(b"\n") + 1
    if complete != len(data):
        os.truncate(path, complete)


def read(path: str | Path) -> list[str]:
    """The complete lines of a file, and none where the file is missing. A torn last line is cut off the file."""
    if not Path(path).exists():
        return []
    cut(path)
    return [line for line, _ in follow(path)]


def rewind(path: str | Path, holds: Callable[[str], bool]) -> list[str]:
    """Keep only the lines for which `holds` is true, and return them. The file is replaced in one step, if at all."""
    lines = read(path)
    kept = [line for line in lines if holds(line)]
    if len(kept) < len(lines):
        write_file(path, "".join(f"{line}\n" for line in kept))
    return kept
