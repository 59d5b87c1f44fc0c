"""kill -9 at random moments; the same command goes on and ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlinf_isaac.checkpoint.bundle import read_bundle

SCRIPT = """
import sys
from pathlib import Path
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.config import build_config
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local import LocalEngine

if __name__ == "__main__":
    start = read_bundle(sys.argv[1])
    config = build_config(start.config["job"], "test", sys.argv[3:])
    for event in LocalEngine().rl(RlJob(config, start, Path(sys.argv[2]))):
        print(type(event).__name__, flush=True)
"""
OVERRIDES = [
    "env.max_episode_steps=16",
    "rl.iterations=6",
    "rl.episodes=4",
    "rl.num_envs=2",
    "rl.minibatch=4",
    "rl.value_widths=[8]",
    "rl.save_interval=2",
    "rl.eval_interval=3",
    "rl.eval_episodes=2",
    "rl.lr=1e-4",
    "rl.trainable=expert",
    "rl.warmup_iterations=0",
]


def start(checkpoint: Path, output: Path, tmp_path: Path, workers: int) -> subprocess.Popen:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, checkpoint, output, *OVERRIDES, f"rl.workers={workers}"]
    path = os.pathsep.join(each for each in sys.path if each)
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    )


def digests(output: Path) -> dict[str, str]:
    return {path.name: read_bundle(path).digest for path in (output / "checkpoints").glob("[0-9]*")}


def undisturbed(checkpoint: Path, tmp_path: Path, workers: int) -> tuple[dict[str, str], float]:
    """Digests of its checkpoints, and the seconds it took."""
    began = time.perf_counter()
    process = start(checkpoint, tmp_path / "whole", tmp_path, workers)
    process.communicate()
    assert process.returncode == 0
    return digests(tmp_path / "whole"), time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_a_random_moment(small_checkpoints, tmp_path, seed):
    workers = 1 + seed % 2
    expected, seconds = undisturbed(small_checkpoints / "6", tmp_path, workers)
    process = start(small_checkpoints / "6", tmp_path / "cut", tmp_path, workers)
    try:
        process.wait(random.Random(seed).uniform(0.3, 0.95) * seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    again = start(small_checkpoints / "6", tmp_path / "cut", tmp_path, workers)
    again.communicate()
    assert again.returncode == 0
    assert digests(tmp_path / "cut") == expected


def test_killed_between_two_checkpoints(small_checkpoints, tmp_path):
    """After the second checkpoint was announced, while the iteration after it runs."""
    expected, _ = undisturbed(small_checkpoints / "6", tmp_path, workers=1)
    process = start(small_checkpoints / "6", tmp_path / "cut", tmp_path, workers=1)
    assert process.stdout is not None
    saved = 0
    for line in process.stdout:
        saved += line.strip() == "CheckpointSaved"
        if saved == 2:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    assert set(digests(tmp_path / "cut")) == {"2", "4"}
    again = start(small_checkpoints / "6", tmp_path / "cut", tmp_path, workers=1)
    output, _ = again.communicate()
    assert again.returncode == 0
    assert output.split().count("CheckpointSaved") == 3
    assert digests(tmp_path / "cut") == expected
