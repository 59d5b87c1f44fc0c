"""Checks the options of `doctor env`, and makes what its checks look at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import single
from rlinf_isaac.config.task import task_of
from rlinf_isaac.envs import make_env
from rlinf_isaac.envs.conformance.bench import Bench, Recording
from rlinf_isaac.envs.vector import TaskEnv
from rlinf_isaac.jobs import options
from rlinf_isaac.tasks.task import Task

if TYPE_CHECKING:
    from rlinf_isaac.preflight import Findings

KEYS = {
    "task": "env.task",
    "env": "env.backend",
    "renderer": "env.renderer",
    "device": "compute.device",
    "episodes": "eval.episodes",
}
RECORDED_EPISODES = 16
"""Episodes of the dataset whose first frames are looked at."""


@dataclass(frozen=True)
class ConformanceJob:
    """What is looked at.

    Attributes:
        config: its task, `env`, ``eval.episodes``, ``policy.action_chunk`` and ``compute.device``.
        env_python: interpreter that has the environment, or None.
        dataset: to compare with, or None.
    """

    config: JobConfig
    env_python: str | None
    dataset: Path | None


def check(
    findings: Findings, *, preset: str, env_python: str, dataset: str, repo_id: str, **chosen: str
) -> ConformanceJob | None:
    """Check these options; None where nothing can be started with them."""
    from rlinf_isaac.preflight import check_config, check_dataset, check_device, check_simulator

    config = single(load_config(preset, options.to_overrides(chosen, KEYS, options.NONE)))
    python = options.interpreter(env_python)
    # An environment is played in as `demos` does, without a policy.
    findings.add([*check_config(config, "demos"), *check_device(config, "demos"), *check_simulator(config, python)])
    root = None
    if dataset != options.NONE:
        root = options.find_dataset(dataset, repo_id)
        # The rate is compared with what the environment says of it, too.
        findings.add(check_dataset(config, root, ("cameras", "state", "actions")))
    return None if findings.errors else ConformanceJob(config, python, root)


def bench_of(job: ConformanceJob) -> Bench:
    """The environment that the checks look at.

    Its rows share one process, however many CPUs there are: what leaks between rows shows only there.
    """

    def make(rows: int, max_steps: int | None) -> TaskEnv:
        env = job.config.env
        config = job.config if max_steps is None else replace(job.config, env=replace(env, max_episode_steps=max_steps))
        return make_env(config, rows, job.env_python, workers=1)

    task = task_of(job.config)
    recording = None if job.dataset is None else read_recording(job.dataset, task)
    return Bench(make, task, recording, job.config.eval.episodes, job.config.policy.action_chunk)


def read_recording(root: Path, task: Task) -> Recording:
    """What the checks read of a dataset that has the task's features.

    Raises:
        DatasetError: the dataset is damaged.
    """
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset

    dataset = LeRobotDataset(root)
    first = dataset.episode_starts[
        np.unique(np.linspace(0, dataset.num_episodes - 1, RECORDED_EPISODES).round().astype(int))
    ]
    return Recording(
        root.name,
        dataset.fps,
        {slot: dataset.images(camera.dataset, first) for slot, camera in task.cameras.items()},
        np.asarray(dataset.column(task.state.dataset))[first],
        np.asarray(dataset.column(task.action.dataset)),
    )
