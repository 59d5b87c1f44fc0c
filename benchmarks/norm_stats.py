"""How fast norm statistics are computed, and in how much memory, beside the ways it is usually done.

    python benchmarks/norm_stats.py [--episodes 2000] [--length 500] [--horizon 50] [--repeats 5] [--openpi DIRECTORY]

Writes a synthetic LeRobot v2.1 dataset without images (8-D state, 7-D action) to a temporary directory, then measures
in a fresh process each:

* ours: open the dataset and compute, for absolute actions and for delta actions.
* OpenPI's loop: its ``RunningStats`` fed with its batches of action chunks, from arrays in memory. The real class, from
  the installed package (PyPI: rlinf-openpi, with numpydantic and pydantic) or from --openpi, the directory that holds
  ``openpi/``; skipped when neither is there.
* a dataset-object loop: state and action chunk of one frame after the other, read through `LeRobotDataset` and, if it
  is installed, Hugging Face ``datasets`` (whose rows hold one action, not a chunk); no statistics are computed.

CPU seconds (user + system) are reported rather than wall seconds, so that the figures nearly hold on a busy machine;
imports are not counted. The loops run on `--loop-rows` rows. The bar for 1 M rows: 0.5 M rows per CPU second, 600 MB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.data.lerobot.format import ACTION, STATE, vector_feature
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.lerobot.writer import LeRobotWriter
from rlinf_isaac.data.norm_stats import compute_norm_stats

FEATURES = {
    STATE: vector_feature([f"state_{entry}" for entry in range(8)]),
    ACTION: vector_feature([f"action_{entry}" for entry in range(7)]),
}
BATCH_SIZE = 32


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


def ours(args: argparse.Namespace, delta_actions: str) -> dict[str, Any]:
    """Open and compute, the fastest of several times."""
    best = {"open_s": float("inf"), "compute_s": float("inf")}
    for _ in range(args.repeats):
        dataset = None  # so that two are never in memory
        start = time.process_time()
        dataset = LeRobotDataset(args.root)
        opened = time.process_time()
        compute_norm_stats(dataset, args.horizon, delta_actions=delta_actions)
        seconds = {"open_s": opened - start, "compute_s": time.process_time() - opened}
        best = min(best, seconds, key=lambda timing: sum(timing.values()))
    assert dataset is not None
    return best | {"rows": dataset.num_frames, "seconds": sum(best.values())}


def openpi_loop(args: argparse.Namespace) -> dict[str, Any]:
    """OpenPI's estimator over OpenPI's batches."""
    sys.path[:0] = [args.openpi] if args.openpi else []
    try:
        from openpi.shared.normalize import RunningStats
    except ImportError as error:
        return {"skipped": f"{error}; see --openpi"}
    dataset = LeRobotDataset(args.root)
    rows = min(args.loop_rows, dataset.num_frames) // BATCH_SIZE * BATCH_SIZE
    dataset.column(STATE), dataset.column(ACTION)  # in memory before the clock starts
    stats = {"state": RunningStats(), "actions": RunningStats()}
    start = time.process_time()
    for first in range(0, rows, BATCH_SIZE):
        indices = np.arange(first, first + BATCH_SIZE)
        stats["state"].update(dataset.column(STATE)[indices])
        stats["actions"].update(dataset.action_chunks(indices, args.horizon))
    for estimator in stats.values():
        estimator.get_statistics()
    return {"rows": rows, "seconds": time.process_time() - start}


def row_loop(args: argparse.Namespace) -> dict[str, Any]:
    """State and action chunk of one frame after the other through our reader."""
    dataset = LeRobotDataset(args.root)
    rows = min(args.loop_rows, dataset.num_frames)
    start = time.process_time()
    for index in range(rows):
        dataset.column(STATE)[index]
        dataset.action_chunks([index], args.horizon)
    return {"rows": rows, "seconds": time.process_time() - start}


def huggingface_loop(args: argparse.Namespace) -> dict[str, Any]:
    """One row after the other through ``datasets``, as LeRobot's dataset holds it."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        return {"skipped": str(error)}
    files = sorted(str(path) for path in args.root.glob("data/*/*.parquet"))[:100]
    dataset = load_dataset("parquet", data_files=files, split="train", cache_dir=str(args.root / "cache"))
    dataset = dataset.with_format("torch")
    rows = min(args.loop_rows, len(dataset))
    start = time.process_time()
    for index in range(rows):
        dataset[index]
    return {"rows": rows, "seconds": time.process_time() - start}


CONTESTANTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "ours": lambda args: ours(args, "none"),
    "ours, delta actions": lambda args: ours(args, "6,-1"),
    "OpenPI's RunningStats": openpi_loop,
    "LeRobotDataset, row by row": row_loop,
    "HF datasets, row by row": huggingface_loop,
}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One contestant, with the peak memory of its process."""
    before_mb = _peak_rss_mb()
    return CONTESTANTS[args.measure](args) | {"imports_rss_mb": before_mb, "peak_rss_mb": _peak_rss_mb()}


def _peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--length", type=int, default=500)
    parser.add_argument("--horizon", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5, help="the fastest one of ours counts")
    parser.add_argument("--loop-rows", type=int, default=32_000, help="rows that the loops run on")
    parser.add_argument("--openpi", default="", help="directory that holds openpi/")
    parser.add_argument("--measure", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args)))
        return
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "data"
        written = write_dataset(root, args.episodes, args.length)
        rows = args.episodes * args.length
        print(f"{rows:,} rows in {args.episodes} files, action horizon {args.horizon}; written in {written:.1f} CPU s")
        print(f"{'':28}{'rows':>10}{'CPU s':>9}{'rows / CPU s':>14}{'ours is':>10}{'peak RSS':>10}")
        reference = None
        for name in CONTESTANTS:
            command = [sys.executable, __file__, *sys.argv[1:], "--measure", name, "--root", str(root)]
            result = json.loads(subprocess.check_output(command).splitlines()[-1])
            if "skipped" in result:
                print(f"{name:28}skipped: {result['skipped']}")
                continue
            rate = result["rows"] / result["seconds"]
            reference = reference or rate
            memory = f"{result['peak_rss_mb']:.0f} MB"
            line = f"{name:28}{result['rows']:>10,}{result['seconds']:>9.2f}{rate:>14,.0f}"
            print(f"{line}{reference / rate:>9.1f}x{memory:>10}", flush=True)
            if "open_s" in result:
                print(f"    open {result['open_s']:.2f} s, compute {result['compute_s']:.2f} s, ", end="")
                print(f"imports {result['imports_rss_mb']:.0f} MB")


if __name__ == "__main__":
    main()
