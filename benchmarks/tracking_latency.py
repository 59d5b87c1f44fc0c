"""What a slow tracking server costs a training: `sft` with every request held back, beside `sft` on the same server.

    python benchmarks/tracking_latency.py DATASET [--delay 2] [--steps 400] [--rounds 2] [--preset tiny]

Both run in turns, each from nothing, on a real ``mlflow server``. Printed are seconds by the clock, and what had not
been delivered when the training ended; `sync` brings it afterwards.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "tests"))

from faults.proxy import Proxy  # noqa: E402


@contextmanager
def mlflow_server(directory: Path) -> Iterator[str]:
    """Yield the address of a server on an empty sqlite database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{directory / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(directory / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, cwd=directory, start_new_session=True, **quiet) as server:
        uri = f"http://127.0.0.1:{port}"
        while not _answers(uri):
            time.sleep(0.2)
        try:
            yield uri
        finally:
            os.killpg(server.pid, 15)


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def verb(uri: str, *arguments: object) -> tuple[float, str]:
    """Seconds and output of a verb that records to `uri`."""
    places = filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-m", "mlflow_project.cli", *map(str, arguments)]
    began = time.monotonic()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(done.stdout)
    return time.monotonic() - began, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--delay", type=float, default=2.0, help="seconds for each request")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--preset", default="tiny")
    options = parser.parse_args()
    times: dict[float, list[float]] = {0.0: [], options.delay: []}
    with tempfile.TemporaryDirectory() as scratch, mlflow_server(Path(scratch)) as server:
        job = ("sft", "--dataset", options.dataset.absolute(), "--preset", options.preset, "--steps", options.steps)
        for number in range(options.rounds):
            for delay, seen in times.items():
                output = Path(scratch) / f"{number}-{delay}"
                with Proxy(server, delay_s=delay) as between:
                    seconds, text = verb(between.uri, *job, "--output", output)
                seen.append(seconds)
                left = re.search(r"(\d+) records are not in MLflow", text)
                rest = f", {left[1]} records left to sync" if left else ""
                print(f"delay {delay:g} s: {seconds:.1f} s, {len(between.requests)} requests{rest}", flush=True)
                if left:
                    verb(server, "sync", "--output", output, "--tracking-uri", server)
    undisturbed, slow = median(times[0.0]), median(times[options.delay])
    bound = 1.1 * undisturbed + 10
    print(f"median {undisturbed:.1f} s, {slow:.1f} s with {options.delay:g} s per request; bound {bound:.1f} s")


if __name__ == "__main__":
    main()
