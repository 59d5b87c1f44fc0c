"""How fast norm statistics are computed, and in how much memory.

    python benchmarks/norm_stats.py [--episodes 2000] [--length 500] [--horizon 50] [--repeats 5]

Writes a synthetic LeRobot v2.1 dataset without images (8-D state, 7-D action) to a temporary directory, then opens it
and computes its statistics in a fresh process. CPU seconds (user + system) are reported rather than wall seconds, so
that the figure nearly holds on a busy machine; imports are not counted. The bar for 1 M rows: 0.5 M rows per CPU
second, 600 MB.
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

from rlinf_isaac.data.lerobot_format import ACTION, STATE, vector_feature
from rlinf_isaac.data.lerobot_reader import LeRobotDataset
from rlinf_isaac.data.lerobot_writer import LeRobotWriter
from rlinf_isaac.data.norm_stats import compute_norm_stats

FEATURES = {
    STATE: vector_feature([f"state_{entry}" for entry in range(8)]),
    ACTION: vector_feature([f"action_{entry}" for entry in range(7)]),
}


def write_dataset(root: Path, episodes: int, length: int) -> float:
    """Random data whose last action entry is a two-valued gripper command; returns CPU seconds."""
    rng = np.random.default_rng(0)
    start = time.process_time()
    with LeRobotWriter(root, fps=20, features=FEATURES, robot_type="franka") as writer:
        for _ in range(episodes):
            state, action = rng.normal(size=(length, 8)), rng.normal(size=(length, 7))
            action[:, 6] = np.sign(action[:, 6])
            writer.add_episode({STATE: state, ACTION: action}, "Stack the cubes")
    return time.process_time() - start


def measure(root: Path, horizon: int, repeats: int) -> dict[str, float]:
    """Open the dataset and compute; runs in a process of its own, so that peak memory is that of this alone."""
    before_mb = _peak_rss_mb()
    best = {"open_s": float("inf"), "compute_s": float("inf")}
    for _ in range(repeats):
        dataset = None  # so that two are never in memory
        start = time.process_time()
        dataset = LeRobotDataset(root)
        opened = time.process_time()
        compute_norm_stats(dataset, horizon)
        seconds = {"open_s": opened - start, "compute_s": time.process_time() - opened}
        best = min(best, seconds, key=lambda timing: sum(timing.values()))
    return best | {"rows": dataset.num_frames, "imports_rss_mb": before_mb, "peak_rss_mb": _peak_rss_mb()}


def _peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--length", type=int, default=500)
    parser.add_argument("--horizon", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5, help="the fastest one counts")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.horizon, args.repeats)))
        return
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "data"
        written = write_dataset(root, args.episodes, args.length)
        command = [sys.executable, __file__, "--measure", str(root), "--horizon", str(args.horizon)]
        command += ["--repeats", str(args.repeats)]
        result = json.loads(subprocess.check_output(command))
    total = result["open_s"] + result["compute_s"]
    print(f"{result['rows']:,} rows in {args.episodes} files, action horizon {args.horizon}")
    print(f"write    {written:6.2f} CPU s")
    print(f"open     {result['open_s']:6.2f} CPU s  (meta and parquet footers)")
    print(f"compute  {result['compute_s']:6.2f} CPU s  (two columns read, statistics)")
    print(f"total    {total:6.2f} CPU s  = {result['rows'] / total / 1e6:.2f} M rows per CPU second")
    print(f"peak RSS {result['peak_rss_mb']:6.0f} MB     (of which imports {result['imports_rss_mb']:.0f} MB)")


if __name__ == "__main__":
    main()
