"""The journal: every operation for MLflow is on disk before it is sent to a server.

Each call of a verb writes one append-only file ``<output>/journal/<utc time>-<verb>-<id>.jsonl``: a header line, then
one operation (`operations.py`) per line, flushed to disk (fsync) before `Journal.append` returns. The journal is the
source of truth and MLflow a replica: `uploader.py` follows the file while the verb works, `sync.py` replays it later.

The owner holds an ``flock`` on the file while it lives, so another process can tell whether the owner is dead. Forked
children close their copy of the descriptor, so that an orphaned data-loading worker does not keep the journal locked.
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
        verb: the verb that wrote the journal.
        tracking_uri: store of its runs, without credentials.
        created: unix seconds.
        pid: id of the process that created it.
        version: version of the file format.
    """

    verb: str
    tracking_uri: str
    created: float
    pid: int
    version: int = VERSION


class Journal:
    """An open journal that this process owns. `append` may be called from several threads."""

    def __init__(self, path: Path, descriptor: int, header: Header, open_runs: Mapping[str, str | None]) -> None:
        """Call `create` or `take_over` instead. `open_runs`: local uuid -> uuid of the parent, in order of start."""
        self.path = path
        self.header = header
        self.open_runs: dict[str, str | None] = dict(open_runs)
        self.on_append: Callable[[], None] = lambda: None
        self._descriptor = descriptor
        self._lock = threading.Lock()
        _open_journals.add(self)

    @classmethod
    def create(cls, directory: str | Path, verb: str, tracking_uri: str) -> Journal:
        """Start a new journal in `directory`, which is created if missing."""
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
        """Take ownership of the journal of a dead process; None while its owner (or another `sync`) is alive.

        An incomplete last line is cut off.

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
        """Directory for files that exist only to be uploaded (tables, notes)."""
        return self.path.with_suffix(".files")

    def append(self, *operations: Operation) -> None:
        """Write `operations` and flush them to disk, with one fsync for all of them.

        Raises:
            OSError: writing failed; the journal then contains none of `operations`.
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

    def call_too(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every `append`, too. It must return at once."""
        before = self.on_append

        def both() -> None:
            before()
            listener()

        self.on_append = both

    def close(self) -> None:
        """Give up ownership. Closing twice is harmless."""
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
    """The header, and the byte offset of the first operation.

    Raises:
        JournalError: the file has no header, or its version is unknown.
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
    """Read the operations from byte `offset` on; an incomplete last line is not read.

    Args:
        limit: stop after about this many bytes (whole lines, at least one).

    Returns:
        pairs (operation, byte offset after it), and the offset after the last one.

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
    """Runs that were started and not ended -> their parents, in order of start."""
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
