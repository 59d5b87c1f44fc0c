"""Atomic writing, also under kill -9: under its final name, a file or directory is complete or does not exist.

A writer works in a temporary sibling on the same file system (``.<name>.tmp-<pid>-<random>``), flushes it to disk
(fsync of files, then of directories) and renames it. The next writer of the same name removes the temporary files of
killed writers. Known limit: if two machines share a file system and a pid is in use on the second, the orphan of the
first stays until `remove_orphans` runs on a machine on which that pid is free.
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

_TEMPORARY = re.compile(r"\..+\.tmp-(\d+)-[0-9a-f]+(-journal)?")
"""Names of `_temporary_sibling`; sqlite adds -journal."""


def write_file(path: str | Path, data: bytes | str) -> None:
    """Replace the file `path` by `data` atomically and durably. The mode follows the umask."""
    with new_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Yield the path of a temporary file for the block to write. It replaces `path` if the block raises nothing."""
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
        replace: replace an existing directory at `path`. At every moment `path` is the old or the new one.

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
        temporary.mkdir()  # inside the try: KeyboardInterrupt may be raised right after mkdir returns
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


def remove_directory(path: str | Path) -> None:
    """Remove a directory: under its name it is there whole, or not at all. What a kill leaves of it, `remove_orphans`
    removes.

    Raises:
        OSError: it cannot be renamed, and stays as it was.
    """
    path = Path(path)
    aside = _temporary_sibling(path)
    os.rename(path, aside)
    _fsync_directory(path.parent)
    shutil.rmtree(aside)


def remove_orphans(path: str | Path) -> list[Path]:
    """Remove temporary files and directories of killed writers of `path`. Returns the removed paths."""
    path = Path(path)
    pattern = re.compile(rf"\.{re.escape(path.name)}\.tmp-(\d+)-[0-9a-f]+(-journal)?")  # sqlite adds -journal
    removed = []
    for sibling in path.parent.iterdir() if path.parent.is_dir() else ():
        match = pattern.fullmatch(sibling.name)
        if match and not process_exists(int(match[1])):
            shutil.rmtree(sibling) if sibling.is_dir() else sibling.unlink(missing_ok=True)
            removed.append(sibling)
    return removed


def is_orphan(path: Path) -> bool:
    """Whether `path` is what a killed writer or remover of anything has left."""
    match = _TEMPORARY.fullmatch(path.name)
    return match is not None and not process_exists(int(match[1]))


def discard_orphan(path: Path) -> None:
    """Remove what `is_orphan` has found; it may be gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def exclusive(path: str | Path) -> Iterator[None]:
    """Let only one process at a time into the block; others wait. The lock is released when its process ends.

    `path` is a lock file that is used for nothing else; its directory must exist.
    """
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked(directory: str | Path) -> Iterator[None]:
    """Hold a lock on a directory. The lock is released when the process ends, even if it is killed.

    Raises:
        InvalidJob: another process holds the lock on `directory`.
    """
    with open(Path(directory) / ".lock", "a") as file:
        _lock(file, directory)
        yield


@contextmanager
def claimed(path: str | Path) -> Iterator[None]:
    """Hold a lock, like `locked`, on the path of an output that `new_directory` will create.

    The lock file is beside `path` and is removed at the end. The lock file of a killed process is free, and the next
    process that uses it removes it.

    Raises:
        InvalidJob: another process holds the lock on `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f".{path.name}.lock")
    with ExitStack() as stack:
        while True:
            file = stack.enter_context(open(name, "a"))
            _lock(file, path)
            # A previous holder may have removed the file after it was opened here. Then the lock is on a file without a
            # name, which no other process can see, and the file is opened again.
            with suppress(FileNotFoundError):
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
    """Swap two directories in one step (Linux ``renameat2``), or in several if the system does not support that."""
    at_working_directory, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of <linux/fs.h>
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(new), os.fsencode(old)
    if renameat2 and renameat2(at_working_directory, names[0], at_working_directory, names[1], exchange) == 0:
        return
    aside = _temporary_sibling(old)
    os.rename(old, aside)
    os.rename(new, old)
    os.rename(aside, new)


def process_exists(pid: int) -> bool:
    """Whether a process of this machine has this number, whoever it belongs to."""
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
