"""How fast a dataset is validated, and in how much memory.

    python benchmarks/validate_dataset.py [--rows 1000000] [--files 2000] [--repeats 3]

Writes a synthetic LeRobot v2.1 dataset without images (8-D state, 7-D action) to a temporary directory and validates it
in fresh processes. CPU seconds (user + system) are reported, imports not counted. The bar for 1 M rows: 2 CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from rlinf_isaac.data.lerobot.format import ACTION, STATE, vector_feature
from rlinf_isaac.data.lerobot.writer import LeRobotWriter
from rlinf_isaac.data.validate.dataset import validate_dataset

FEATURES = {
    STATE: vector_feature([f"state_{entry}" for entry in range(8)]),
    ACTION: vector_feature([f"action_{entry}" for entry in range(7)]),
}


def write_dataset(root: Path, files: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    with LeRobotWriter(root, fps=20, features=FEATURES, robot_type="franka") as writer:
        for _ in range(files):
            length = rows // files
            columns = {STATE: rng.normal(size=(length, 8)), ACTION: rng.normal(size=(length, 7))}
            writer.add_episode(columns, "Stack the cubes")


def measure(root: Path) -> dict[str, float]:
    start = time.process_time()
    problems = validate_dataset(root)
    seconds = time.process_time() - start
    if problems:
        raise SystemExit("\n".join(map(str, problems)))
    return {"seconds": seconds, "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "data"
        write_dataset(root, args.files, args.rows)
        command = [sys.executable, __file__, "--measure", str(root)]
        runs = [json.loads(subprocess.check_output(command)) for _ in range(args.repeats)]
    seconds = sorted(run["seconds"] for run in runs)
    print(f"{args.rows:,} rows in {args.files} files, {args.repeats} runs")
    rate = args.rows / seconds[0] / 1e6
    print(f"validate {seconds[0]:.2f} to {seconds[-1]:.2f} CPU s, at best {rate:.2f} M rows per CPU second")
    print(f"peak RSS {max(run['peak_rss_mb'] for run in runs):.0f} MB, imports included")


if __name__ == "__main__":
    main()
