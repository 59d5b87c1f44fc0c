"""The parent's side of the simulator's process: starting it, sending it orders, ending it, and reporting failures."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from rlinf_isaac.envs.isaaclab.protocol import receive, send
from rlinf_isaac.ground.cache import cache_directory
from rlinf_isaac.ground.child_process import Child
from rlinf_isaac.ground.errors import SimulatorDied

START_SECONDS = 900.0
"""Time limit for the start of IsaacLab. The first start on a machine compiles Warp's kernels, which takes minutes if
there are few cores."""
ORDER_SECONDS = 120.0
"""Time limit for a reset or one control step of all envs. On a CPU, ten envs usually take well below a second."""
_CLOSE_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_TAIL_BYTES = 100_000


class SimulatorProcess:
    """`worker/server.py` in an interpreter with IsaacLab. It ends when this process ends, even if that is killed."""

    def __init__(self, python: str, settings: dict[str, Any], start_s: float = START_SECONDS) -> None:
        """Start the process and wait until it takes orders.

        Args:
            python: the interpreter.
            settings: the settings of `server.main`, without the socket.
            start_s: time limit for the start.

        Raises:
            SimulatorDied: the process ended, or was not ready in time.
        """
        self._connection, theirs = Pipe()
        settings = settings | {"socket": theirs.fileno()}
        # -I keeps environment variables and the user's directory from adding packages of our interpreter to its path.
        command = [python, "-I", "-u", str(Path(__file__).parent / "worker" / "server.py"), json.dumps(settings)]
        self.child = Child(command, pass_fds=(settings["socket"], settings["memory"]))
        theirs.close()
        self.ready = self._answer("start", start_s)

    def order(self, do: str, timeout_s: float = ORDER_SECONDS, **values: Any) -> dict[str, Any]:
        """Send an order and wait until it is carried out.

        Raises:
            SimulatorDied: the process has ended, failed, or did not finish in time. It is ended in all cases.
        """
        with suppress(OSError):  # the process has ended: `_answer` reports it
            send(self._connection, do=do, **values)
        return self._answer(do, timeout_s)

    def close(self) -> None:
        """End the process: ask it to close, and kill it if it does not. Calling this twice is allowed."""
        if not self._connection.closed:
            with suppress(OSError):
                send(self._connection, do="close")
            self.child.stop(_CLOSE_SECONDS)
            self._connection.close()

    def _answer(self, order: str, timeout_s: float) -> dict[str, Any]:
        limit = time.monotonic() + timeout_s
        try:
            while not self._connection.poll(_LOOK_SECONDS):
                if self.child.ending is not None:
                    raise EOFError
                if time.monotonic() > limit:
                    raise self._died(f"did not finish '{order}' in {timeout_s:.0f} s: it hangs, or lacks CPU time")
            answer = receive(self._connection)
        except (EOFError, OSError) as error:
            self.child.wait(_CLOSE_SECONDS)
            how = self.child.ending or "its connection closed"
            raise self._died(f"ended with {how} during '{order}'") from error
        if not answer["ok"]:
            raise self._died(f"failed at '{order}': {answer['error']}")
        return answer

    def _died(self, how: str) -> SimulatorDied:
        self.child.kill()
        log = cache_directory("isaaclab") / "logs" / f"{self.child.pid}.log"
        with suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(self.child.output(_TAIL_BYTES))
        return SimulatorDied(f"IsaacLab (process {self.child.pid}) {how}. Its last output is in {log}")
