"""A temporary directory per process, which is removed when the process ends.

``<tmp>/rlinf-isaac-<uid>/<pid>-<random>/`` replaces the system's temporary directory in this process and its children:
for this project's files, for MLflow's copies of whole checkpoints, and for the sockets of multiprocessing. The process
holds a lock on it. The directory of a killed process is removed by the next verb, which finds its lock free.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.util import Finalize
from pathlib import Path

from rlinf_isaac.ground.atomic import exclusive

_OWN = re.compile(r"\d+-[0-9a-f]+")
_SOCKET_PATH = 107
"""Largest length of a Unix socket's path in bytes."""
_LONGEST_TAIL = len("/pymp-xxxxxxxx/listener-xxxxxxxx") + 8
"""Length of the paths that multiprocessing and torch append to the temporary directory for a socket."""

_LAST = -200
"""Priority of the clean-up at exit: after multiprocessing's own, which removes its files in the directory."""

_own: tuple[int, Path] | None = None
"""pid and directory of the process that made the directory; a forked child inherits them and makes its own."""


@contextmanager
def own_directory() -> Iterator[None]:
    """Set `tempfile`'s directory, and TMPDIR for child processes, to this process's directory until the block ends.

    The directory is removed when the process ends. The system's temporary directory stays in use if the directory
    cannot be created or locked, if its parent belongs to another user, or if its path is too long for Unix sockets.
    """
    global _own
    before, variables = tempfile.tempdir, {}
    with suppress(OSError):
        plain = Path(tempfile.gettempdir())
        if _own is None or _own[0] != os.getpid():
            _own = os.getpid(), _claim(plain)
        directory = _own[1]
        if directory.is_dir():
            variables = {"TMPDIR": str(directory), **_kept(plain)}
            tempfile.tempdir = str(directory)
    earlier = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        tempfile.tempdir = before
        for name, value in earlier.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _kept(plain: Path) -> dict[str, str]:
    """Variables for caches that must stay in the system's temporary directory: that of torch's compiled kernels."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    if name in os.environ:
        return {}
    with suppress(KeyError, OSError):
        return {name: str(plain / f"torchinductor_{getpass.getuser()}")}
    return {}


def _claim(plain: Path) -> Path:
    """A new locked directory below `plain`. Directories of dead processes are removed.

    Raises:
        OSError: the directory cannot be created.
    """
    root = _root(plain)
    own = root / f"{os.getpid()}-{secrets.token_hex(4)}"
    if len(os.fsencode(own)) + _LONGEST_TAIL > _SOCKET_PATH:
        raise OSError(f"{own} is too long for the sockets in it")
    # The exclusive lock keeps other processes from taking the new directory for a dead one before it is locked. Dead
    # directories are removed after the exclusive lock is released, because that may take long.
    with ExitStack() as dead, exclusive(root / ".lock"):
        for directory in root.iterdir():
            if _OWN.fullmatch(directory.name):
                _remove_dead(directory, dead)
        own.mkdir(mode=0o700)
        lock = os.open(own, os.O_RDONLY | os.O_DIRECTORY)  # stays open, and locked, until the process ends
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    Finalize(None, shutil.rmtree, args=(own,), kwargs={"ignore_errors": True}, exitpriority=_LAST)
    return own


def _root(plain: Path) -> Path:
    """The parent of the directories of all processes of this user.

    Raises:
        OSError: it belongs to another user, is readable by others, or is a link.
    """
    root = plain.absolute() / f"rlinf-isaac-{os.getuid()}"
    with suppress(FileExistsError):
        root.mkdir(mode=0o700)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{root} is not a directory of this user alone")
    return root


def _remove_dead(directory: Path, stack: ExitStack) -> None:
    """If no process holds the lock of a directory, remove the directory when `stack` ends."""
    with suppress(OSError):  # another process may remove it at the same time
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return
        stack.callback(os.close, lock)
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
