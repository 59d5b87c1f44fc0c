"""A demonstration, fine-tuning on it, and evaluations in the real IsaacLab: local, on RLinf, and one that is shot."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support import rows_of, small_config

from rlinf_isaac.checkpoint.bundle import read_bundle, select_bundles
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.demonstrations import record_demonstrations
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.rlinf import RlinfEngine, Runtime
from rlinf_isaac.engines.rlinf.preflight import check_runtime
from rlinf_isaac.ground.errors import SimulatorDied
from rlinf_isaac.ground.events import EpisodeDone, VideoSaved

pytestmark = pytest.mark.isaaclab

EPISODES, STEPS = 3, 16


def config(max_episode_steps: int = STEPS) -> JobConfig:
    return small_config(
        [
            "env.backend=isaaclab",
            "env.task=stack3",
            f"env.max_episode_steps={max_episode_steps}",
            f"eval.episodes={EPISODES}",
            "eval.num_envs=2",
            "eval.videos=1",
            "demos.episodes=1",
            "demos.noise=0",
            "demos.workers=1",
        ]
    )


@pytest.fixture(scope="module")
def dataset(env_python, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("demos") / "stack3"
    for _ in record_demonstrations(config(300), root):
        pass
    return root


@pytest.fixture(scope="module")
def checkpoints(dataset, tmp_path_factory) -> Path:
    from rlinf_isaac.jobs.sft import plan

    job = plan(config(300), dataset, None, tmp_path_factory.mktemp("sft"))
    for _ in LocalEngine().sft(job):
        pass
    return job.output / "checkpoints"


@pytest.fixture
def job(checkpoints, tmp_path) -> EvaluationJob:
    bundles = tuple(read_bundle(path) for path in select_bundles(checkpoints, [2, 6]))
    return EvaluationJob(config(), bundles, tmp_path / "local")


@pytest.fixture
def rlinf() -> RlinfEngine:
    """As in `tests/rlinf_isaac/engines/rlinf/conftest.py`, which says how to get one."""
    runtime = Runtime(python=os.environ.get("RLINF_PYTHON", sys.executable))
    if problems := [each for each in check_runtime(runtime) if each.level == "error"]:
        pytest.skip(f"RLinf is not installed: {problems[0].cause}; set RLINF_PYTHON")
    return RlinfEngine(runtime)


def simulators() -> list[int]:
    """Process ids of this process's simulators."""
    tasks = Path("/proc/self/task").iterdir()
    children = [int(each) for task in tasks for each in (task / "children").read_text().split()]
    return [each for each in children if b"isaaclab/worker/server.py" in Path(f"/proc/{each}/cmdline").read_bytes()]


def test_the_dataset_says_where_it_was_recorded(dataset) -> None:
    recorded = LeRobotDataset(dataset)
    assert recorded.num_episodes == 1
    assert recorded.num_frames > 100
    env = recorded.provenance["env"]
    assert env["backend"] == "isaaclab-3.0.0/newton_mjwarp/cpu"
    assert env["assets"].startswith("standin-")
    assert env["renderer"] == "newton"


def test_rlinf_plays_the_same_episodes(job, rlinf, tmp_path) -> None:
    elsewhere = replace(job, output=tmp_path / "rlinf")
    videos = [event.path for event in LocalEngine().evaluate(job) if isinstance(event, VideoSaved)]
    assert len(videos) == 2
    for _ in rlinf.evaluate(elsewhere):
        pass
    assert len(rows_of(job.output)) == 2 * EPISODES
    assert rows_of(elsewhere.output) == rows_of(job.output)
    assert simulators() == []


def test_a_simulator_that_is_shot_fails_the_sweep_which_goes_on_later(job, tmp_path) -> None:
    job = replace(job, output=tmp_path / "shot")
    events = LocalEngine().evaluate(job)
    next(event for event in events if isinstance(event, EpisodeDone))
    (pid,) = simulators()
    os.kill(pid, signal.SIGKILL)
    shot = time.monotonic()
    with pytest.raises(SimulatorDied, match="signal 9"):
        list(events)
    assert time.monotonic() - shot < 10
    assert 0 < len(rows_of(job.output)) < 2 * EPISODES
    done = [event for event in LocalEngine().evaluate(job) if isinstance(event, EpisodeDone)]
    assert len(done) == 2 * EPISODES
    assert len(rows_of(job.output)) == 2 * EPISODES
