"""What a machine, a disk, a network or an input can do to any verb, as a problem with a cure. The rest is bugs."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow_project.tracking.redact import clean_urls
from rlinf_isaac.ground.errors import Problem

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NAMES = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT, errno.ESTALE, errno.EBUSY, errno.ETXTBSY)
_DEVICE = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_NOT_NOW = (401, 403, 408, 429, 500, 502, 503, 504)
_ALLOCATORS = ("DefaultCPUAllocator", "CUDA out of memory", "std::bad_alloc", "malloc of size")
_LONGEST = 300


def trouble_of(error: BaseException, *, checking: bool = False) -> Problem | None:
    """The problem that an exception stands for; None for a bug, which shall keep its traceback.

    Args:
        error: that nobody caught.
        checking: whether nothing has been started yet: then what is checked is at fault if it nests without end.
    """
    if isinstance(error, MemoryError) or _is_allocation(error):
        cure = "choose less at once (batch, environments, workers), or a machine with more; see also `ulimit -a`"
        return Problem("out-of-memory", f"the memory of this machine does not suffice{_reason(error)}", cure)
    if isinstance(error, RecursionError) and checking:
        return Problem("too-deep", "something that was given nests without end", "look at the files that were named")
    if (reason := _connection_trouble(error)) is not None:
        cure = "see that MLFLOW_TRACKING_URI is right, its server runs and its credentials are set, and try again"
        return Problem("store-unreachable", f"the MLflow store does not answer: {reason}", cure)
    if isinstance(error, OSError):
        return _file_trouble(error)
    return None


def _file_trouble(error: OSError) -> Problem | None:
    where = f"{error.filename}: " if error.filename is not None else ""
    cause = f"{where}{error.strerror or error}"
    if error.errno in _FULL:
        return Problem("disk-full", cause, "free some space, then the same command goes on where this one stopped")
    if error.filename is None:
        return None
    if error.errno in _CLOSED:
        return Problem(
            "no-permission",
            cause,
            "change its permissions, or choose a place (--output, the working directory) where this user may write",
        )
    if error.errno in _NAMES:
        return Problem("bad-path", cause, "correct the name, or what lies in its place")
    if error.errno in _TAKEN:
        return Problem("path-changed", cause, "see whether another process or a link is in its place, and try again")
    if error.errno in _DEVICE:
        return Problem("io-error", cause, "see whether the disk is in order, and what `ulimit -a` allows")
    return None


def _connection_trouble(error: BaseException) -> str | None:
    """What keeps MLflow from its store, in a line; None where it is something else."""
    modules: Mapping[str, Any] = sys.modules  # whoever has no mlflow imported has no trouble with it
    mlflow, requests = modules.get("mlflow.exceptions"), modules.get("requests.exceptions")
    sql = modules.get("sqlalchemy.exc")
    for each in _chain(error):
        if requests is not None and isinstance(each, requests.RequestException):
            return _line(each)
        if sql is not None and isinstance(each, sql.OperationalError | sql.InterfaceError):
            return _line(each)
        if mlflow is not None and isinstance(each, mlflow.RestException) and each.get_http_status_code() in _NOT_NOW:
            return _line(each)
        if mlflow is not None and isinstance(each, mlflow.MlflowException) and _is_of_the_address(each):
            return _line(each)
    return None


def _is_of_the_address(error: BaseException) -> bool:
    """Whether it is about the store's address: nobody is there, or MLflow has no store of that kind."""
    known = ("API request to", "filesystem tracking backend")
    return any(text in str(error) for text in known) or type(error).__name__.endswith("StoreURIException")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _line(error: BaseException) -> str:
    text = " ".join(clean_urls(str(error)).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _is_allocation(error: BaseException) -> bool:
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(name in str(error) for name in _ALLOCATORS)


def _reason(error: BaseException) -> str:
    return f" ({_line(error)})" if str(error) else ""
