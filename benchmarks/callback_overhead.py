"""What a callback costs a training: microseconds of the loop for each report, and of a step with and without.

    python benchmarks/callback_overhead.py [--steps 2000] [--metrics 12] [--step-ms 2] [--every 1]

A step keeps the interpreter busy for some milliseconds, as a loop does that only launches kernels, and every so many
steps reports its metrics (lerobot: 200, OpenPI: 100, RLinf: 1, with steps of seconds). It is timed without a callback;
with one whose server does not exist; and with one whose journal nobody uploads. The three take turns, so that what else
the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median, quantiles

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from mlflow_project.callbacks.ending import Ending  # noqa: E402
from mlflow_project.callbacks.job import Job  # noqa: E402
from mlflow_project.callbacks.options import Options, read_options  # noqa: E402
from mlflow_project.callbacks.training import Training  # noqa: E402

ROUND = 100
"""Steps of one turn."""


def compute(seconds: float) -> None:
    """Keep the interpreter busy, as a loop does that launches kernels."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--metrics", type=int, default=12, help="numbers in each report")
    parser.add_argument("--every", type=int, default=1, help="steps from one report to the next")
    parser.add_argument("--step-ms", type=float, default=2.0)
    options = parser.parse_args()
    values = {f"train/value_{number}": float(number) for number in range(options.metrics)}
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        own = read_options()
        tracked = {
            "journal only": Training(Job("lerobot", Path(scratch, "a"), "a", {}), Options(own.labels, None)),
            "server gone": Training(Job("lerobot", Path(scratch, "b"), "b", {}), own),
        }
        calls: dict[str, list[float]] = {name: [] for name in tracked}
        loops: dict[str, list[float]] = {name: [] for name in ("no callback", *tracked)}
        time.sleep(15)  # the forwarder has imported MLflow by then
        for begin in range(0, options.steps, ROUND):
            for name, seen in loops.items():
                began = time.perf_counter()
                for step in range(begin, begin + ROUND):
                    compute(options.step_ms / 1000)
                    if step % options.every == 0 and (training := tracked.get(name)) is not None:
                        called = time.perf_counter()
                        training.metrics(values, step)
                        calls[name].append(time.perf_counter() - called)
                seen.append((time.perf_counter() - began) / ROUND)
        sizes = {name: each.recorder.journal.path for name, each in tracked.items()}
        for training in tracked.values():
            training.end(Ending("FINISHED"))
        for name, seen in calls.items():
            spread = quantiles(seen, n=100)
            each = f"mean {mean(seen) * 1e6:.1f}, median {median(seen) * 1e6:.1f}, 99 % {spread[98] * 1e6:.1f}"
            lines = sizes[name].read_text().count('"op":"metrics"')
            print(f"{name}: {each} us a report; {lines} of {len(seen)} reports in the journal")
        plain = median(loops["no callback"])
        for name, seen in loops.items():
            print(f"{name}: {median(seen) * 1000:.3f} ms a step ({(median(seen) / plain - 1) * 100:+.1f} %)")


if __name__ == "__main__":
    main()
