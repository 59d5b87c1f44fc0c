"""Removes checkpoints, one in a step, and never one that a process reads.

Whoever works with a bundle holds a shared lock on its manifest (`in_use`); whoever removes it takes that lock alone,
and renames the directory before anything in it is deleted. So a checkpoint is there whole or not at all, and what a
killed process leaves has a name that no reader looks for. The locks end with their process; they reach as far as
``flock`` of the file system does, which on NFS is all of its clients.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE
from rlinf_isaac.ground import atomic


@contextmanager
def in_use(bundles: Iterable[Path]) -> Iterator[None]:
    """Keep these bundles from being removed until the block ends. What is no bundle is left out."""
    with ExitStack() as stack:
        for path in bundles:
            with suppress(OSError):
                descriptor = os.open(path / MANIFEST_FILE, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def is_in_use(bundle: Path) -> bool:
    """Whether a process works with a bundle now."""
    with _alone(bundle) as alone:
        return not alone


def remove_bundle(bundle: Path) -> bool:
    """Remove a bundle; False if a process works with it, and it stays.

    Raises:
        OSError: it cannot be removed.
    """
    with _alone(bundle) as alone:
        if alone:
            atomic.remove_directory(bundle)
        return alone


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(file.lstat().st_size for file in directory.rglob("*") if not file.is_dir())


@contextmanager
def _alone(bundle: Path) -> Iterator[bool]:
    """Hold the lock of a bundle alone; yields whether that is possible."""
    descriptor = os.open(bundle / MANIFEST_FILE, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)
