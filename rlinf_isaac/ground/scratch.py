"""Where temporary files lie while a verb works: in one directory of its process, which goes with it.

``<tmp>/rlinf-isaac-<uid>/<pid>-<random>/`` stands for the system's temporary directory, in this process and in those
that it starts: for our own files, for MLflow's copies of whole checkpoints, for the sockets of multiprocessing. The
process holds a lock on it. What a killed process has left is removed by the next verb, which finds the lock free.
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
"""Bytes that the path of a Unix socket may have."""
_LONGEST_TAIL = len("/pymp-xxxxxxxx/listener-xxxxxxxx") + 8
"""What multiprocessing, and torch, put behind the directory of a socket."""

_LAST = -200
"""Priority at the end of a process: behind those of multiprocessing, which removes what is in the directory itself."""

_own: tuple[int, Path] | None = None
"""Which process has which directory."""


@contextmanager
def own_directory() -> Iterator[None]:
    """Let `tempfile`, and TMPDIR of child processes, name a directory of this process until the block ends.

    It is removed when the process ends. Nothing changes where it cannot be made or locked, where its place belongs to
    somebody else, or where its name would be too long for Unix sockets.
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
    """What others keep in the system's temporary directory, and want there again: torch its compiled kernels."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    if name in os.environ:
        return {}
    with suppress(KeyError, OSError):
        return {name: str(plain / f"torchinductor_{getpass.getuser()}")}
    return {}


def _claim(plain: Path) -> Path:
    """A new locked directory below `plain`; those of dead processes are removed.

    Raises:
        OSError: there cannot be one.
    """
    root = _root(plain)
    own = root / f"{os.getpid()}-{secrets.token_hex(4)}"
    if len(os.fsencode(own)) + _LONGEST_TAIL > _SOCKET_PATH:
        raise OSError(f"{own} is too long for the sockets in it")
    # Until a new directory has its lock, nobody looks. What is dead is removed when others can look again.
    with ExitStack() as dead, exclusive(root / ".lock"):
        for each in root.iterdir():
            if _OWN.fullmatch(each.name):
                _remove_dead(each, dead)
        own.mkdir(mode=0o700)
        lock = os.open(own, os.O_RDONLY | os.O_DIRECTORY)  # for the life of the process
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    Finalize(None, shutil.rmtree, args=(own,), kwargs={"ignore_errors": True}, exitpriority=_LAST)
    return own


def _root(plain: Path) -> Path:
    """The directory for all processes of this user.

    Raises:
        OSError: it belongs to somebody else, who would see the files, or is a link.
    """
    root = plain.absolute() / f"rlinf-isaac-{os.getuid()}"
    with suppress(FileExistsError):
        root.mkdir(mode=0o700)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{root} is not a directory of this user alone")
    return root


def _remove_dead(directory: Path, stack: ExitStack) -> None:
    """Remove a directory when `stack` ends, if no process holds its lock."""
    with suppress(OSError):  # another process removes it, too
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return
        stack.callback(os.close, lock)
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
