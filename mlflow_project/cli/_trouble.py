"""What a machine, a disk, a network or an input can do to any verb, as a problem with a cure. The rest is bugs."""

from __future__ import annotations

import errno

from mlflow_project.tracking.unreachable import one_line, unreachable
from rlinf_isaac.ground.errors import Problem

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NAMES = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT, errno.ESTALE, errno.EBUSY, errno.ETXTBSY)
_DEVICE = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_ALLOCATORS = ("DefaultCPUAllocator", "CUDA out of memory", "std::bad_alloc", "malloc of size")


def trouble_of(error: BaseException, *, checking: bool = False) -> Problem | None:
    """The problem that an exception stands for; None for a bug, which shall keep its traceback.

    Args:
        error: that nobody caught.
        checking: whether nothing has been started yet: then what is checked is at fault if it nests without end.
    """
    if isinstance(error, MemoryError) or _is_allocation(error):
        cure = (
            "choose less at once (sft.batch_size, sft.micro_batch, eval.num_envs, workers), set "
            "sft.activation_checkpointing=true, take more GPUs (compute.num_processes), or a machine with more"
        )
        return Problem("out-of-memory", f"the memory of this machine does not suffice{_reason(error)}", cure)
    if isinstance(error, RecursionError) and checking:
        return Problem("too-deep", "something that was given nests without end", "look at the files that were named")
    if (problem := unreachable(error)) is not None:
        return problem
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


def _is_allocation(error: BaseException) -> bool:
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(name in str(error) for name in _ALLOCATORS)


def _reason(error: BaseException) -> str:
    return f" ({one_line(error)})" if str(error) else ""
