"""Converts in processes that have little memory and little time. Driven by test_hostile.py through pipes.

Each line on stdin, a JSON list of a working directory, a source and an output in it, forks one process (after the
converter was imported once, without torch). A line of JSON on stdout says how it ended.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy  # noqa: F401  (imported before the fork)

from rlinf_isaac.checkpoint.convert import prepare, run
from rlinf_isaac.ground.errors import InvalidJob

MEMORY = 1 << 30  # address space beyond what the imports have
CPU_SECONDS = 90
WALL_SECONDS = 120  # only what waits for something takes so much longer


def convert(directory: str, source: str, output: str) -> dict[str, object]:
    """Codes of the problems; what else was raised."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    signal.alarm(WALL_SECONDS)
    os.chdir(directory)
    try:
        run(prepare(source, output), verify=False)
    except InvalidJob as error:
        return {"codes": [problem.code for problem in error.problems], "message": str(error)}
    except BaseException as error:
        return {"raised": f"{type(error).__name__}: {str(error)[:300]}"}
    return {"codes": []}


def main() -> None:
    for line in sys.stdin:
        reader, writer = os.pipe()
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.write(writer, json.dumps(convert(*json.loads(line))).encode()[:60_000])
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            text = pipe.read()
        _, status, usage = os.wait4(pid, 0)
        result = (
            json.loads(text) if text else {"raised": f"it was ended by signal {-os.waitstatus_to_exitcode(status)}"}
        )
        cost = {
            "seconds": usage.ru_utime + usage.ru_stime,
            "wall": time.monotonic() - start,
            "mb": usage.ru_maxrss / 1024,
        }
        print(json.dumps(result | cost), flush=True)


if __name__ == "__main__":
    main()
