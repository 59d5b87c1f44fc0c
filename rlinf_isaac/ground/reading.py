"""Reads files that are not trusted: only regular files, of a limited size, and only unambiguous JSON.

    with open_regular(path) as file: ...       # OSError for a pipe, a device or a directory; never blocks
    data = read_bytes(path, most=1_000_000)    # TooLarge for a larger file, before it is read
    value = read_json(path, most=1_000_000)    # ValueError if it is not JSON, or ambiguous (a key twice)

Files that a library opens itself (pyarrow, safetensors, PyAV) are first checked with `check_regular`. An attacker who
can replace a file between this check and the library's opening could do greater harm anyway.
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
"""Largest nesting depth of JSON, because functions that walk it may be recursive. Configs are about six levels deep."""
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_CHUNK = 1 << 20


class TooLarge(ValueError):
    """A file is larger than the limit for its kind."""


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading in binary. Symbolic links are followed. A pipe does not block.

    Raises:
        OSError: it cannot be opened, or is not a regular file; `strerror` says what it is instead.
    """
    check_regular(path)  # checked before opening, because opening a device can have side effects
    # The file owns its descriptor from the start, so that an interrupt at any moment closes it exactly once.
    file = open(path, "rb", opener=_without_blocking)  # noqa: SIM115  (the caller closes it)
    try:
        _refuse_special(os.fstat(file.fileno()).st_mode, path)
    except BaseException:
        file.close()
        raise
    return file


def _without_blocking(path: str, _: int) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)


def check_regular(path: str | Path) -> os.stat_result:
    """The `stat` of a regular file, without opening it. Raises OSError like `open_regular`."""
    try:
        status = os.stat(path)
    except ValueError as error:  # the path has a null byte
        raise OSError(errno.EINVAL, "no file can have that name", str(path)) from error
    _refuse_special(status.st_mode, path)
    return status


def read_bytes(path: str | Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes. A file that grows while it is read is refused too.

    Raises:
        OSError: as `open_regular`, or while it is read.
        TooLarge: it has more bytes.
    """
    with open_regular(path) as file:
        _refuse_large(os.fstat(file.fileno()).st_size, most)
        data = file.read(most + 1)
    _refuse_large(len(data), most)
    return data


def read_lines(path: str | Path, most: int, longest: int = _CHUNK) -> Iterator[bytes]:
    """The lines of a regular file, without their ends, one at a time.

    Args:
        path: the file. Lines end with LF only.
        most: largest size of the file in bytes.
        longest: largest length of a line in bytes.

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
        finite: refuse ``NaN`` and ``Infinity``, which are not JSON but are accepted by Python's parser.

    Raises:
        ValueError: it is not JSON, nests deeper than `MAX_DEPTH`, has a key twice in an object, or holds half a
            surrogate pair, which can neither be printed nor stored.
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
    """A dict of the pairs. Raises ValueError if a key occurs twice, because parsers differ in which value they use."""
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
                for outer in level
                for inner in (outer.values() if isinstance(outer, dict) else outer)
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
        raise ValueError("it holds half a surrogate pair, which is not text") from error


def _refuse_special(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, f"it is {kind}, not a file", str(path))


def _refuse_large(size: int, most: int) -> None:
    if size > most:
        raise TooLarge(f"it has {size} bytes or more, no such file has more than {most}")
