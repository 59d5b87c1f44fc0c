"""The simulator's process as its parent sees it: it starts, carries out orders, and ends, or the reason why not."""

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
"""For IsaacLab to start. The first start on a machine compiles Warp's kernels, which takes minutes on few cores."""
ORDER_SECONDS = 120.0
"""For a reset, or one control step of all envs; usually well below a second per ten envs on a CPU."""
_CLOSE_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_TAIL_BYTES = 100_000


class SimulatorProcess:
    """`worker/server.py` under an interpreter that has IsaacLab. It ends with this process, however this one ends."""

    def __init__(self, python: str, settings: dict[str, Any], start_s: float = START_SECONDS) -> None:
        """Start it and wait until it takes orders.

        Args:
            python: the interpreter.
            settings: as `server.main` reads them, without the socket.
            start_s: how long that may take.

        Raises:
            SimulatorDied: it ended, or was not ready in time.
        """
        self._connection, theirs = Pipe()
        settings = settings | {"socket": theirs.fileno()}
        # -I: no variable or user directory of ours may put packages of another interpreter on its path.
        command = [python, "-I", "-u", str(Path(__file__).parent / "worker" / "server.py"), json.dumps(settings)]
        self.child = Child(command, pass_fds=(settings["socket"], settings["memory"]))
        theirs.close()
        self.ready = self._answer("start", start_s)

    def order(self, do: str, timeout_s: float = ORDER_SECONDS, **values: Any) -> dict[str, Any]:
        """Give an order and wait until it is carried out.

        Raises:
            SimulatorDied: the process is gone, refused, or was not done in time; it has been ended.
        """
        with suppress(OSError):  # gone: reading says why
            send(self._connection, do=do, **values)
        return self._answer(do, timeout_s)

    def close(self) -> None:
        """Let it finish, or end it. Closing twice is fine."""
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
                    raise self._died(f"was not done with '{order}' in {timeout_s:.0f} s: it hangs, or is starved")
            answer = receive(self._connection)
        except (EOFError, OSError) as error:
            self.child.wait(_CLOSE_SECONDS)
            how = self.child.ending or "its connection closed"
            raise self._died(f"ended with {how} while it had to '{order}'") from error
        if not answer["ok"]:
            raise self._died(f"failed to '{order}': {answer['error']}")
        return answer

    def _died(self, how: str) -> SimulatorDied:
        self.child.kill()
        log = cache_directory("isaaclab") / "logs" / f"{self.child.pid}.log"
        with suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(self.child.output(_TAIL_BYTES))
        return SimulatorDied(f"IsaacLab (process {self.child.pid}) {how}. What it last printed is in {log}")
