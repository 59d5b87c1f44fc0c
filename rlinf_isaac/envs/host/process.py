"""The parent's side of a simulator's process: starting it, sending it orders, ending it, and reporting failures."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from rlinf_isaac.envs.host.protocol import receive, send
from rlinf_isaac.ground.cache import cache_directory
from rlinf_isaac.ground.child_process import Child
from rlinf_isaac.ground.errors import SimulatorDied

CLOSE_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_TAIL_BYTES = 100_000


class SimulatorRefused(Exception):
    """The process cannot do the order, for a reason that its answer names; it was ended."""

    def __init__(self, answer: dict[str, Any], log: Path) -> None:
        self.answer, self.log = answer, log
        super().__init__(answer["error"])


class SimulatorProcess:
    """A script in another interpreter that takes orders. It ends when this process ends, even if that is killed."""

    def __init__(
        self, name: str, python: str, script: Path, settings: dict[str, Any], shared: Sequence[int], logs: str
    ) -> None:
        """Start the process. `finish` waits for its first answer, which says that it takes orders.

        Args:
            name: what it is called in messages.
            python: the interpreter.
            script: what it runs.
            settings: of the script, which finds its end of the connection under the key ``socket``.
            shared: file descriptors that it inherits.
            logs: part of the cache in which its output is kept if it fails.

        Raises:
            SimulatorDied: there is no such interpreter.
        """
        self.name, self._logs = name, logs
        self._connection, theirs = Pipe()
        settings = settings | {"socket": theirs.fileno()}
        # -I keeps environment variables and the user's directory from adding packages of our interpreter to its path.
        command = [python, "-I", "-u", str(script), json.dumps(settings)]
        try:
            self.child = Child(command, pass_fds=(theirs.fileno(), *shared))
        except OSError as error:
            self._connection.close()
            raise SimulatorDied(f"{name} did not start: {error}") from error
        finally:
            theirs.close()

    def order(self, do: str, timeout_s: float, **values: Any) -> dict[str, Any]:
        """Send an order and wait until it is carried out. Raises as `finish`."""
        self.begin(do, **values)
        return self.finish(do, timeout_s)

    def begin(self, do: str, **values: Any) -> None:
        """Send an order; `finish` must follow."""
        with suppress(OSError):  # the process has ended: `finish` reports it
            send(self._connection, do=do, **values)

    def finish(self, do: str, timeout_s: float) -> dict[str, Any]:
        """Wait until an order is carried out, and return the answer.

        Raises:
            SimulatorDied: the process has ended, failed, or did not finish in time. It is ended in all cases.
            SimulatorRefused: its answer has the key ``refused``. It is ended, too.
        """
        limit = time.monotonic() + timeout_s
        try:
            while not self._connection.poll(_LOOK_SECONDS):
                if self.child.ending is not None:
                    raise EOFError
                if time.monotonic() > limit:
                    raise self._died(f"did not finish '{do}' in {timeout_s:.0f} s: it hangs, or lacks CPU time")
            answer = receive(self._connection)
        except (EOFError, OSError) as error:
            self.child.wait(CLOSE_SECONDS)
            how = self.child.ending or "its connection closed"
            raise self._died(f"ended with {how} during '{do}'") from error
        if answer.get("refused"):
            raise SimulatorRefused(answer, self._end())
        if not answer["ok"]:
            raise self._died(f"failed at '{do}': {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process: ask it to close, and kill it if it does not. Calling this twice is allowed."""
        self.ask_to_close()
        if not self._connection.closed:
            self.child.stop(CLOSE_SECONDS)
            self._connection.close()

    def ask_to_close(self) -> None:
        """Let it begin to close; `close` waits for it. So several close at the same time."""
        if not self._connection.closed:
            with suppress(OSError):
                send(self._connection, do="close")

    def _died(self, how: str) -> SimulatorDied:
        log = self._end()
        return SimulatorDied(f"{self.name} (process {self.child.pid}) {how}. Its last output is in {log}")

    def _end(self) -> Path:
        """Kill it and keep its last output, in the file that is returned."""
        self.child.kill()
        log = cache_directory(self._logs) / "logs" / f"{self.child.pid}.log"
        with suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(self.child.output(_TAIL_BYTES))
        return log
