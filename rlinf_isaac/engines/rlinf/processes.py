"""Finds and kills all processes of a run, however they were started.

Ray's daemons and workers leave the process group and session of their parent, and outlive a parent that was killed. But
they inherit the environment variable `OWNER`. If it cannot be read, because Ray overwrites it with a process title, the
process is found by the files that every process of Ray has open in the cluster's directory (`ray_directory`), whose
name contains the owner. Linux only (``/proc``).
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

OWNER = "RLINF_ISAAC_OWNER"
_END_SECONDS = 5.0


def new_owner() -> str:
    """A name for the processes of a run: pid and start time of the owning process, and a random part."""
    return f"{os.getpid()}-{_start_time(os.getpid())}-{secrets.token_hex(2)}"


def ray_directory(owner: str) -> Path:
    """Directory of an owner's Ray cluster. It is short, because paths of Unix sockets are limited to 107 bytes."""
    return Path(f"/tmp/rlinf-{owner}")


def owned(owner: str) -> list[int]:
    """Process ids of this owner, without the calling process."""
    return [pid for pid, found in _marked() if found == owner]


def end_owned(owner: str) -> None:
    """Kill (SIGKILL) every process of this owner, except the calling process, until none is left."""
    limit = time.monotonic() + _END_SECONDS
    while (pids := owned(owner)) and time.monotonic() < limit:
        _kill(pids)
        time.sleep(0.02)


def end_abandoned() -> list[int]:
    """Kill the processes whose owner has ended without cleaning up, and remove their Ray directories."""
    killed = [pid for pid, owner in _marked() if _is_gone(owner)]
    _kill(killed)
    for directory in Path("/tmp").glob("rlinf-*-*-*"):
        if _is_gone(directory.name.removeprefix("rlinf-")):
            shutil.rmtree(directory, ignore_errors=True)
    return killed


def is_zombie(pid: int) -> bool:
    """Whether a process has ended but was not reaped yet."""
    return _stat(pid)[:1] == ["Z"]


def _marked() -> Iterator[tuple[int, str]]:
    """Process id and owner of all running processes with an owner, without the calling process."""
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        with suppress(OSError):  # the process belongs to another user, or has ended meanwhile
            if pid != os.getpid() and not is_zombie(pid) and (owner := _owner(path)):
                yield pid, owner


def _owner(process: Path) -> str | None:
    prefix = f"{OWNER}=".encode()
    for entry in (process / "environ").read_bytes().split(b"\0"):
        if entry.startswith(prefix):
            return entry.removeprefix(prefix).decode(errors="replace")
    for link in (process / "fd").iterdir():
        with suppress(OSError):
            if match := re.match(r"/tmp/rlinf-(\d+-\d+-[0-9a-f]+)/", os.readlink(link)):
                return match[1]
    return None


def _is_gone(owner: str) -> bool:
    match = re.fullmatch(r"(\d+)-(\d+)-[0-9a-f]+", owner)
    return match is not None and _start_time(int(match[1])) != int(match[2])


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _start_time(pid: int) -> int:
    """Start time of a process in clock ticks since boot (field 22 of ``/proc/<pid>/stat``); -1 if it does not exist."""
    fields = _stat(pid)
    return int(fields[19]) if fields else -1


def _stat(pid: int) -> list[str]:
    """Fields of ``/proc/<pid>/stat`` after the process name, which may contain spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
