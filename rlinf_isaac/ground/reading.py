"""Files that others wrote, read with suspicion: a regular file, no larger than its kind ever is, JSON of one meaning.

    with open_regular(path) as file: ...       # a pipe, a device, a directory: OSError, and nothing waits
    data = read_bytes(path, most=1_000_000)    # larger: TooLarge, before a byte is read
    value = read_json(path, most=1_000_000)    # not JSON, or JSON that two readers may take differently: ValueError

What a library opens by itself (pyarrow, safetensors, PyAV) is first looked at by `check_regular`. Whoever can replace a
file between the look and the library's own opening could do worse than that.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

MAX_DEPTH = 100
"""How deep JSON may nest. Configs nest about six deep; what walks them may be recursive."""
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_CHUNK = 1 << 20


class TooLarge(ValueError):
    """A file has more bytes than any of its kind."""


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading in binary; symbolic links are followed. A pipe is not waited for.

    Raises:
        OSError: it cannot be opened, or is no regular file; `strerror` says what it is instead.
    """
    check_regular(path)  # opening a device can have effects of its own
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _refuse_special(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(path: str | Path) -> os.stat_result:
    """What `stat` says of a regular file, which is not opened. Raises OSError as `open_regular`."""
    try:
        status = os.stat(path)
    except ValueError as error:  # a null byte
        raise OSError(errno.EINVAL, "no file can have that name", str(path)) from error
    _refuse_special(status.st_mode, path)
    return status


def read_bytes(path: str | Path, most: int) -> bytes:
    """The bytes of a regular file that has at most so many; the limit holds while it is read, too.

    Raises:
        OSError: as `open_regular`, or while it is read.
        TooLarge: it has more.
    """
    with open_regular(path) as file:
        _refuse_large(os.fstat(file.fileno()).st_size, most)
        data = file.read(most + 1)
    _refuse_large(len(data), most)
    return data


def read_lines(path: str | Path, most: int, longest: int = _CHUNK) -> Iterator[bytes]:
    """The lines of a regular file, without their ends, one at a time.

    Args:
        path: the file. Only LF ends a line.
        most: bytes of the file.
        longest: bytes of a line.

    Raises:
        OSError, TooLarge: as `read_bytes`.
    """
    with open_regular(path) as file:
        _refuse_large(os.fstat(file.fileno()).st_size, most)
        read = 0
        while line := file.readline(longest + 1):
            read += len(line)
            _refuse_large(read, most)
            if len(line) > longest:
                raise TooLarge(f"it has a line of more than {longest} bytes")
            yield line.removesuffix(b"\n")


def read_json(path: str | Path, most: int) -> Any:
    """The JSON value in a regular file. Raises OSError and TooLarge as `read_bytes`, ValueError as `parse_json`."""
    return parse_json(read_bytes(path, most))


def parse_json(data: bytes | str, *, finite: bool = True) -> Any:
    """A JSON value.

    Args:
        data: UTF-8 without a byte order mark.
        finite: refuse ``NaN`` and ``Infinity``, which JSON does not have and Python's reader takes.

    Raises:
        ValueError: it is not JSON, nests deeper than `MAX_DEPTH`, names a key twice, or holds half a surrogate pair,
            which is no text: nothing could print or store it.
    """
    text = data if isinstance(data, str) else _decoded(data)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse if finite else None, parse_int=_int)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError("it nests too deeply")
    if "\\u" in text or isinstance(data, str):
        _refuse_surrogates(value)
    return value


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error}") from error


def _int(digits: str) -> int:
    if len(digits) > 40:
        raise ValueError(f"it holds an integer of {len(digits)} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no key stands twice: which of the two a reader takes is anybody's guess."""
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"it names the key {twice[:80]!r} twice")
    return values


def _refuse(constant: str) -> Any:
    raise ValueError(f"it holds {constant}, which is not JSON")


def _is_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = (
            [
                inner
                for each in level
                for inner in (each.values() if isinstance(each, dict) else each)
                if isinstance(inner, dict | list)
            ]
            if isinstance(value, dict | list)
            else []
        )
        if not level:
            return False
    return True


def _refuse_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a surrogate pair, which is no text") from error


def _refuse_special(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, f"it is {kind}, not a file", str(path))


def _refuse_large(size: int, most: int) -> None:
    if size > most:
        raise TooLarge(f"it has {size} bytes or more, no such file has more than {most}")
