"""The journal: what a verb wants MLflow to know, durable on disk before anything is sent.

One verb invocation writes one append-only file ``<output>/journal/<utc time>-<verb>-<id>.jsonl``: a header line, then
one operation (`operations.py`) per line, each flushed to disk (fsync) before `Journal.append` returns. The journal is
the truth and MLflow a replica of it: `uploader.py` follows the file while the verb works, `sync.py` replays it later.

The owner holds an ``flock`` on the file for as long as it lives, so another process can tell a dead owner's journal
from a busy one. Forked children drop their copy of the descriptor: an orphaned data worker must not keep it locked.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mlflow_project.tracking.operations import EndRun, Operation, StartRun, decode, encode
from mlflow_project.tracking.redact import clean_urls
from rlinf_isaac.ground import lines
from rlinf_isaac.ground.errors import RlinfIsaacError

VERSION = 1


class JournalError(RlinfIsaacError):
    """A journal cannot be read."""


@dataclass(frozen=True)
class Header:
    """First line of a journal.

    Attributes:
        verb: what was run.
        tracking_uri: where its runs belong, without credentials.
        created: unix seconds.
        pid: process that owns it.
        version: format of the file.
    """

    verb: str
    tracking_uri: str
    created: float
    pid: int
    version: int = VERSION


class Journal:
    """An open journal that this process owns. `append` may be called from several threads."""

    def __init__(self, path: Path, descriptor: int, header: Header, open_runs: Mapping[str, str | None]) -> None:
        """Use `create` or `take_over`. `open_runs`: local uuid -> uuid of the parent run, in order of their start."""
        self.path = path
        self.header = header
        self.open_runs: dict[str, str | None] = dict(open_runs)
        self.on_append: Callable[[], None] = lambda: None
        self._descriptor = descriptor
        self._lock = threading.Lock()
        _open_journals.add(self)

    @classmethod
    def create(cls, directory: str | Path, verb: str, tracking_uri: str) -> Journal:
        """Start a new journal in `directory` (made when missing)."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{verb}-{secrets.token_hex(4)}.jsonl"
        path = (directory / name).absolute()
        descriptor = lines.open_to_append(path, new=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        header = Header(verb, tracking_uri, time.time(), os.getpid())
        journal = cls(path, descriptor, header, {})
        lines.write(descriptor, json.dumps(asdict(header)))
        return journal

    @classmethod
    def take_over(cls, path: Path) -> Journal | None:
        """Own the journal of a dead process; None while its owner (or another `sync`) is alive.

        A torn last line is cut off.

        Raises:
            JournalError: the file is not a journal.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        try:
            lines.cut(path)
            header, offset = read_header(path)
            operations, _ = read_operations(path, offset)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, header, open_runs(operations))

    @property
    def files(self) -> Path:
        """Directory for artifacts that exist only because of the journal (tables, notes)."""
        return self.path.with_suffix(".files")

    def append(self, *operations: Operation) -> None:
        """Make `operations` durable, with one fsync for all of them.

        Raises:
            OSError: the disk refused; nothing of `operations` stays in the journal.
        """
        texts = [clean_urls(encode(operation)) for operation in operations]
        with self._lock:
            # A signal may leave this block anywhere: a run counts as open from before its line is written.
            starts = [operation for operation in operations if isinstance(operation, StartRun)]
            self.open_runs |= {operation.run: operation.parent for operation in starts}
            lines.write(self._descriptor, *texts)
            for operation in operations:
                _follow_runs(self.open_runs, operation)
        self.on_append()

    def close(self) -> None:
        """Give up ownership. Closing twice is fine."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _forget_after_fork(self) -> None:
        # Closing the copy does not release the parent's lock; an explicit unlock would.
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_header(path: Path) -> tuple[Header, int]:
    """The header, and the offset in bytes of the first operation.

    Raises:
        JournalError: there is none, or its version is unknown.
    """
    with open(path, "rb") as file:
        line = file.readline()
    try:
        header = Header(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise JournalError(f"{path} does not begin with a journal header ({error}); it is not a journal") from None
    if header.version != VERSION:
        raise JournalError(f"{path} has journal version {header.version}, this release reads {VERSION}")
    return header, len(line)


def read_operations(path: Path, offset: int, limit: int | None = None) -> tuple[list[tuple[Operation, int]], int]:
    """Complete operations from byte `offset` on; an incomplete last line is left for later.

    Args:
        limit: read about this many bytes only (whole lines; at least one).

    Returns:
        (operation, offset just after it) pairs, and the offset after the last of them.

    Raises:
        JournalError: a complete line is not an operation.
    """
    operations = []
    end = offset
    try:
        for line, after in lines.follow(path, offset):
            operations.append((decode(line), after))
            end = after
            if limit is not None and end - offset >= limit:
                break
    except (ValueError, TypeError, KeyError) as error:
        raise JournalError(f"{path}, byte {end}: not an operation ({error!r})") from None
    return operations, end


def open_runs(operations: Iterable[tuple[Operation, int]]) -> dict[str, str | None]:
    """Runs that were started and not ended, with their parents, in order of their start."""
    runs: dict[str, str | None] = {}
    for operation, _ in operations:
        _follow_runs(runs, operation)
    return runs


def _follow_runs(runs: dict[str, str | None], operation: Operation) -> None:
    if isinstance(operation, StartRun):
        runs[operation.run] = operation.parent
    elif isinstance(operation, EndRun):
        runs.pop(operation.run, None)


_open_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _forget_all_after_fork() -> None:
    for journal in list(_open_journals):
        journal._forget_after_fork()


os.register_at_fork(after_in_child=_forget_all_after_fork)
