"""The parent's side of a driver (`worker/driver.py`): sends orders and reads the journals of its run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlinf_isaac.engines.rlinf.run_journal import STARTING, JournalReader
from rlinf_isaac.ground.child_process import Child
from rlinf_isaac.ground.errors import EngineFailed
from rlinf_isaac.ground.events import Progress

_POLL_SECONDS = 0.05
_STOP_SECONDS = 10.0


class DriverProcess:
    """A driver process, started with the directory of its run.

    Attributes:
        directory: directory of the run, with ``config.yaml`` (written before), ``journal/`` and ``driver.log``.
        process: the process.
    """

    def __init__(
        self,
        directory: Path,
        command: list[str],
        environment: Mapping[str, str],
        *,
        check_cluster: Callable[[], None],
        patience_s: float,
    ) -> None:
        """Start the process.

        Args:
            directory: directory of the run.
            command: command line of the process.
            environment: complete environment of the process.
            check_cluster: raises EngineFailed if the Ray cluster has ended.
            patience_s: seconds without a journal line after which the run counts as stuck.
        """
        self.directory = directory
        self._check_cluster = check_cluster
        self._reader = JournalReader(directory / "journal")
        self._heard = time.monotonic()
        self._patience_s = patience_s
        self.child = Child(command, directory / "driver.log", environment=environment)

    def order(self, do: str, **values: Any) -> Iterator[dict[str, Any]]:
        """Send an order, and yield the lines of the run's journals until it is done.

        Raises:
            EngineFailed: the driver, Ray or a worker failed or died, or no line was written for `patience_s`.
        """
        try:
            self._say(do, **values)
        except BrokenPipeError:
            self._watch()
        yield from self.until("done")

    def until(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of the journals up to and including the first one of this `kind`. Raises as `order`."""
        while True:
            for line in self._read():
                yield line
                if line["kind"] == kind:
                    return
            self._watch()
            time.sleep(_POLL_SECONDS)

    def start(self, label: str = "start RLinf") -> Generator[Progress, None, dict[str, Any]]:
        """Wait until workers, model and simulator have started; yields progress and returns the driver's description of
        them. Raises as `order`."""
        yield Progress(label, 0, len(STARTING), STARTING[0])
        ready: dict[str, Any] = {}
        for ready in self.until("ready"):
            if ready["kind"] == "started":
                done = STARTING.index(ready["part"]) + 1
                yield Progress(label, done, len(STARTING), "".join(STARTING[done : done + 1]))
        return ready

    def stop(self) -> None:
        """Let it finish its files, and end it."""
        with suppress(BrokenPipeError):
            self._say("stop")
        self.child.stop(_STOP_SECONDS)

    def _say(self, do: str, **values: Any) -> None:
        self.child.say(json.dumps({"do": do, **values}))

    def _read(self) -> Iterator[dict[str, Any]]:
        for line in self._reader.read():
            self._heard = time.monotonic()
            if line["kind"] == "failed":
                raise EngineFailed(self._reason(line["cause"]))
            yield line

    def _watch(self) -> None:
        """Raise if a process has ended, or nothing was heard for too long."""
        if (ending := self.child.ending) is not None:
            for _ in self._read():  # it may have said why
                pass
            raise EngineFailed(f"RLinf's driver ended with {ending}: {self._reason('')}")
        self._check_cluster()
        if time.monotonic() - self._heard > self._patience_s:
            seconds = f"{self._patience_s:.0f} s"
            raise EngineFailed(f"RLinf has reported nothing for {seconds}: a simulator may hang. See {self.directory}")

    def _reason(self, cause: str) -> str:
        printed = self.child.output().decode(errors="replace")
        return f"{cause or cause_in(printed)} (log: {self.directory / 'driver.log'})"


def cause_in(log: str) -> str:
    """The exception of the first failed worker call in RLinf's output; without one, the last line of the output."""
    _, found, text = log.partition("exception is ")
    if not found:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        return lines[-1][:500] if lines else "it printed nothing"
    # Ray's error is a traceback; its last line starts at the left margin with the name of the exception.
    named = re.search(r"^[A-Za-z_][\w.]*: .*(?:\n +-> .*)*", text, re.MULTILINE)
    return " ".join((named[0] if named else text[:500]).split())
