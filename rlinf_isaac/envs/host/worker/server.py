"""A worker's process, started by `HostEnv`: carries out orders until its parent ends.

It runs in the environment's interpreter as a script and finds its package by its own path, so that packages of the
parent's environment are not importable. stdout and stderr go to a log file.
"""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlinf_isaac.envs.host.worker.rows import Rows


def main(settings: dict[str, Any], connection: Connection) -> None:
    """Build an environment, report what it is like, and carry out orders."""
    from rlinf_isaac.envs.host.worker.kinds import make_rows

    serve(settings, connection, make_rows)


def serve(settings: dict[str, Any], connection: Connection, make_rows: Callable[[dict[str, Any]], Rows]) -> None:
    """`main` for rows that this function makes of the settings."""
    from rlinf_isaac.envs.host.protocol import receive, send
    from rlinf_isaac.envs.host.worker.make import SourceChanged
    from rlinf_isaac.envs.host.worker.vector import Autoreset

    building = True
    try:
        rows = make_rows(settings)
        send(connection, ok=True, **rows.report())
        while (order := receive(connection)).get("do") != "close":
            do = order.pop("do")
            building = do in ("build", "expert")
            assert do in rows.ORDERS, do
            send(connection, ok=True, **(getattr(rows, do)(**order) or {}))
        with suppress(Exception):  # how it ends is of no importance any more
            rows.close()
    except (EOFError, BrokenPipeError):
        pass
    except BaseException as error:
        traceback.print_exc()
        codes: dict[type, str] = {SourceChanged: "changed", Autoreset: "autoreset"}
        refused = codes.get(type(error)) or ("not-made" if building else None)
        text = " ".join(f"{type(error).__name__}: {error}".split())[:1000]
        with suppress(OSError):
            send(connection, ok=False, error=text, refused=refused)
    sys.stdout.flush()
    os._exit(0)  # there is nothing to save, and an orderly exit of the interpreter may take seconds


if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("begin.py")))["begin"](main)
