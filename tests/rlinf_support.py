"""RLinf's own runners (`stock_rlinf`) for tests marked `rlinf`: a Ray cluster of the test's, and runs on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rlinf_isaac.engines.rlinf.processes import OWNER, _marked, end_owned, new_owner, ray_directory
from rlinf_isaac.engines.rlinf.session import RAY_PORTS, free_ports, ray_head

PYTHON = os.environ.get("RLINF_PYTHON", sys.executable)
TESTS = Path(__file__).parent


def owned_by(pid: int) -> list[int]:
    """Process ids that belong to a run of the process `pid`, whether that is alive or not."""
    return [found for found, owner in _marked() if owner.startswith(f"{pid}-")]


@contextmanager
def ray_cluster() -> Iterator[dict[str, str]]:
    """The environment in which RLinf finds a Ray cluster of its own, while the block runs."""
    owner = new_owner()
    directory, ports = ray_directory(owner), free_ports(len(RAY_PORTS))
    places = [str(TESTS.parent), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        OWNER: owner,
        "PYTHONPATH": os.pathsep.join(places),
        "RAY_TMPDIR": str(directory),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.urandom(24).hex(),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    directory.mkdir()
    try:
        command = [*ray_head(PYTHON, directory, ports), "--include-dashboard=false"]
        _run(command, environment, directory / "start.log")
        yield environment | {"RAY_ADDRESS": f"127.0.0.1:{ports[0]}"}
    finally:
        end_owned(owner)
        shutil.rmtree(directory, ignore_errors=True)


def run_stock(task: str, log_path: Path, environment: Mapping[str, str], *overrides: str) -> str:
    """Run a main of `stock_rlinf` to its end; what it printed."""
    command = [PYTHON, "-m", "stock_rlinf", task, str(log_path), *overrides]
    return _run(command, environment, log_path.with_suffix(".log"))


def _run(command: list[str], environment: Mapping[str, str], log: Path) -> str:
    with open(log, "w") as file:  # not a pipe, which Ray's daemons would keep open
        status = subprocess.run(command, env=environment, stdout=file, stderr=file, cwd=log.parent).returncode
    assert status == 0, log.read_text()[-5000:]
    return log.read_text()
