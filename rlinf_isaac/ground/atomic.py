"""Writing that survives kill -9: a reader sees the whole file or directory under its final name, or nothing.

A writer works in a temporary sibling on the same file system (``.<name>.tmp-<pid>-<random>``), flushes it to disk
(fsync of files, then of directories) and renames it. What a killed writer left is removed by the next writer of the
same name, once the process that made it is gone. Known limit: two machines that share a file system may reuse a pid,
then an orphan stays until `remove_orphans` runs on a machine where that pid is free.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from rlinf_isaac.ground.errors import InvalidJob


def write_file(path: str | Path, data: bytes | str) -> None:
    """Replace `path` by `data` atomically and durably. Mode follows the umask."""
    with new_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Yield the name of a temporary file, for the block to write, that replaces `path` when the block ends well."""
    path = Path(path)
    remove_orphans(path)
    temporary = _temporary_sibling(path)
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync_directory(path.parent)


@contextmanager
def new_directory(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty temporary directory that becomes `path` when the block ends without an exception.

    Args:
        path: final name. Its parents are created.
        replace: an existing directory at `path` is replaced; at every moment `path` is the old or the new one.

    Raises:
        FileExistsError: `path` exists and `replace` is False.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not replace:
        raise FileExistsError(errno.EEXIST, "it exists already", str(path))
    remove_orphans(path)
    temporary = _temporary_sibling(path)
    try:
        temporary.mkdir()  # inside: an interrupt comes to light when the call has returned
        yield temporary
        _fsync_tree(temporary)
        if replace and path.exists():
            _exchange(temporary, path)
            shutil.rmtree(temporary)
        else:
            _rename_new(temporary, path)
        _fsync_directory(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_orphans(path: str | Path) -> list[Path]:
    """Remove what killed writers of `path` left beside it; returns what was removed."""
    path = Path(path)
    pattern = re.compile(rf"\.{re.escape(path.name)}\.tmp-(\d+)-[0-9a-f]+(-journal)?")  # the latter is sqlite's
    removed = []
    for sibling in path.parent.iterdir() if path.parent.is_dir() else ():
        match = pattern.fullmatch(sibling.name)
        if match and not _alive(int(match[1])):
            shutil.rmtree(sibling) if sibling.is_dir() else sibling.unlink(missing_ok=True)
            removed.append(sibling)
    return removed


@contextmanager
def exclusive(path: str | Path) -> Iterator[None]:
    """One process at a time in the block; the others wait. `path` is a file for this alone, whose directory exists. The
    lock goes with its process, however it ends."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked(directory: str | Path) -> Iterator[None]:
    """Hold a directory for one process; the lock goes with the process, however it ends.

    Raises:
        InvalidJob: another process works in `directory`.
    """
    with open(Path(directory) / ".lock", "a") as file:
        _lock(file, directory)
        yield


@contextmanager
def claimed(path: str | Path) -> Iterator[None]:
    """Hold the name of an output that is to appear whole (`new_directory`) for one process, as `locked`. The file
    beside it that this takes is gone afterwards; one that a kill left is free for the next, who removes it.

    Raises:
        InvalidJob: another process is about to make `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f".{path.name}.lock")
    with ExitStack() as stack:
        while True:
            file = stack.enter_context(open(name, "a"))
            _lock(file, path)
            with suppress(FileNotFoundError):  # its holder removed it before it let it go: that lock is nobody's
                if os.path.sameopenfile(file.fileno(), stack.enter_context(open(name)).fileno()):
                    break
        stack.callback(name.unlink, missing_ok=True)
        yield


def _lock(file: IO[str], place: str | Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        cause = f"another process works in {place}"
        raise InvalidJob.of("output-busy", cause, "wait for it, or choose another --output") from None


def _rename_new(temporary: Path, path: Path) -> None:
    try:
        os.rename(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(errno.EEXIST, "another process has made it meanwhile", str(path)) from error
        raise


def _temporary_sibling(path: Path) -> Path:
    return path.parent / f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"


def _exchange(new: Path, old: Path) -> None:
    """Swap two directories in one step (Linux ``renameat2``), or in two where the system or file system cannot."""
    at_working_directory, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of <linux/fs.h>
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(new), os.fsencode(old)
    if renameat2 and renameat2(at_working_directory, names[0], at_working_directory, names[1], exchange) == 0:
        return
    aside = _temporary_sibling(old)
    os.rename(old, aside)
    os.rename(new, old)
    os.rename(aside, new)


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fsync_tree(root: Path) -> None:
    for directory, _, files in os.walk(root, topdown=False):
        for name in files:
            _fsync(Path(directory) / name)
        _fsync_directory(Path(directory))


def _fsync_directory(path: Path) -> None:
    _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
