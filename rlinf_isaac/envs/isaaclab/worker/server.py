"""The process in which IsaacLab runs, started by `LabEnv`: `host.worker.server` with IsaacLab's rows."""

from __future__ import annotations

import runpy
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def main(settings: dict[str, Any], connection: Connection) -> None:
    """Start IsaacLab, report what its task is like, and carry out orders."""
    from rlinf_isaac.envs.host.worker.server import serve
    from rlinf_isaac.envs.isaaclab.worker.rows import LabRows
    from rlinf_isaac.envs.isaaclab.worker.stack_cube_rows import StackCubeRows

    serve(settings, connection, StackCubeRows if settings.get("stack_cube") else LabRows)


if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[2] / "host" / "worker" / "begin.py"))["begin"](main)
