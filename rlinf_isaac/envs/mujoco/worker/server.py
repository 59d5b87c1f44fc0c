"""A worker's process, started by `StackCubeProcesses`: carries out orders until its parent ends.

It is a script in the parent's own interpreter, with the same packages. stdout and stderr go to a log file.
"""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ORDERS = ("reset", "step", "images", "frame")
"""What a parent may ask for: the names of methods of `rows.Rows`."""


def main(settings: dict[str, Any], connection: Connection) -> None:
    """Build the environments, report what they are like, and carry out orders."""
    sys.path[:] = settings["path"]  # the parent's, which may have packages that no site directory has
    from rlinf_isaac.envs.host.protocol import receive, send
    from rlinf_isaac.envs.mujoco.worker.rows import Rows

    try:
        rows = Rows(settings)
        send(connection, ok=True, identity=rows.env.identity.as_dict())
        while (order := receive(connection)).get("do") != "close":
            do = order.pop("do")
            assert do in ORDERS, do
            getattr(rows, do)(**order)
            send(connection, ok=True)
        with suppress(Exception):  # how it ends is of no importance any more
            rows.env.close()
    except (EOFError, BrokenPipeError):
        pass
    except BaseException as error:
        traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())[:1000]
        with suppress(OSError):
            send(connection, ok=False, error=text)
    sys.stdout.flush()
    os._exit(0)  # there is nothing to save, and an orderly exit of the interpreter takes time


if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[2] / "host" / "worker" / "begin.py"))["begin"](main)
