"""A driver (`driver.py`) as its parent sees it: orders go in, what the journals of its run say comes out."""

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
    """A process that was started with `directory` as its argument.

    Attributes:
        directory: of the run: ``config.yaml`` (written before), ``journal/``, ``driver.log``.
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
        """Start it.

        Args:
            directory: of the run.
            command: the process, and its whole `environment`.
            environment: see `command`.
            check_cluster: raises EngineFailed when what the driver needs is gone.
            patience_s: how long nothing may be heard of before the run counts as stuck.
        """
        self.directory = directory
        self._check_cluster = check_cluster
        self._reader = JournalReader(directory / "journal")
        self._heard = time.monotonic()
        self._patience_s = patience_s
        self.child = Child(command, directory / "driver.log", environment=environment)

    def order(self, do: str, **values: Any) -> Iterator[dict[str, Any]]:
        """Give an order; what the run's journals say until it is carried out.

        Raises:
            EngineFailed: the driver, Ray or a worker failed or died, or nothing was heard for too long.
        """
        try:
            self._say(do, **values)
        except BrokenPipeError:
            self._watch()
        yield from self.until("done")

    def until(self, kind: str) -> Iterator[dict[str, Any]]:
        """What the journals say, up to the first line of this kind, which is the last one given. Raises as `order`."""
        while True:
            for line in self._read():
                yield line
                if line["kind"] == kind:
                    return
            self._watch()
            time.sleep(_POLL_SECONDS)

    def start(self, label: str = "start RLinf") -> Generator[Progress, None, dict[str, Any]]:
        """Wait until workers, model and simulator are there; gives what the driver says of them. Raises as `order`."""
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
            raise EngineFailed(f"nothing was heard of RLinf for {seconds}: a simulator may hang. See {self.directory}")

    def _reason(self, cause: str) -> str:
        printed = self.child.output().decode(errors="replace")
        return f"{cause or cause_in(printed)} (log: {self.directory / 'driver.log'})"


def cause_in(log: str) -> str:
    """Why a call of a worker failed, of what RLinf printed: the exception of the first one that did."""
    _, found, text = log.partition("exception is ")
    if not found:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        return lines[-1][:500] if lines else "it said nothing"
    # The text of Ray's error is a traceback, whose last line is at the left margin and names the exception.
    named = re.search(r"^[A-Za-z_][\w.]*: .*(?:\n +-> .*)*", text, re.MULTILINE)
    return " ".join((named[0] if named else text[:500]).split())
