"""Other processes of this project: programs that it starts (`Child`), and what every worker process of its own does
first (`follow_parent`)."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import connection, parent_process
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO


class Child:
    """A program in a process and a session of its own: ctrl-C is for this process, which then ends that one.

    What the program prints goes into a file. Its stdin is a pipe that closes when this process ends, even by SIGKILL,
    which the program may take as its own end. It is killed when this object is forgotten, or this process exits.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start it.

        Args:
            command: program and arguments.
            log: the file, replaced, for its stdout and stderr; without one, a file that has no name.
            environment: all of its variables; without them, those of this process.
            pass_fds: descriptors that it shares.

        Raises:
            OSError: there is no such program, or no such directory for the log.
        """
        # Both live as long as this object.
        self._log: IO[bytes] = TemporaryFile() if log is None else open(log, "w+b")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self._end = weakref.finalize(self, _kill, self._process)

    @property
    def pid(self) -> int:
        """Its process id, and that of its group and session."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it runs."""
        return self._process.poll()

    @property
    def ending(self) -> str | None:
        """How it ended, in words; None while it runs."""
        if (status := self.status) is None:
            return None
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    def say(self, line: str) -> None:
        """Write a line to its stdin.

        Raises:
            BrokenPipeError: it does not listen any more.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def close(self) -> None:
        """Close its stdin, which it may take as the order to end. Closing twice is fine."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def output(self, last: int | None = None) -> bytes:
        """What it has printed: all of it, or the `last` bytes."""
        size = os.fstat(self._log.fileno()).st_size
        start = 0 if last is None else max(0, size - last)
        # Where the program writes next is where this descriptor stands: it must not be moved.
        return os.pread(self._log.fileno(), size - start, start)

    def wait(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.status is not None

    def stop(self, grace_s: float) -> None:
        """Kill it, unless it ends by itself within so many seconds. Stopping twice is fine."""
        self.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """End it now, with all processes of its group. Killing twice is fine."""
        self._end()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # of a line that it did not take
        process.stdin.close()
    process.wait()


def follow_parent() -> None:
    """Ignore ctrl-C, which reaches the whole process group, and exit when the parent ends, even by SIGKILL.

    Otherwise a worker whose parent was killed would wait forever, because it holds both ends of its queue.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
