"""The process in which IsaacLab runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlinf_isaac.envs.host import process

START_SECONDS = 900.0
"""Time limit for the start of IsaacLab. The first start on a machine compiles Warp's kernels, which takes minutes if
there are few cores."""
ORDER_SECONDS = 120.0
"""Time limit for a reset or one control step of all envs. On a CPU, ten envs usually take well below a second."""
_SERVER = Path(__file__).parent / "worker" / "server.py"


class SimulatorProcess(process.SimulatorProcess):
    """`worker/server.py` in an interpreter with IsaacLab."""

    def __init__(self, python: str, settings: dict[str, Any], start_s: float = START_SECONDS) -> None:
        """Start the process and wait until it takes orders.

        Args:
            python: the interpreter.
            settings: the settings of `server.main`, without the socket.
            start_s: time limit for the start.

        Raises:
            SimulatorDied: the process ended, or was not ready in time.
        """
        super().__init__("IsaacLab", python, _SERVER, settings, [settings["memory"]], "isaaclab")
        self.ready = self.finish("start", start_s)

    def order(self, do: str, timeout_s: float = ORDER_SECONDS, **values: Any) -> dict[str, Any]:
        return super().order(do, timeout_s, **values)
