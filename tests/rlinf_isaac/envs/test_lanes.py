from __future__ import annotations

import os
from dataclasses import replace

import pytest

from rlinf_isaac.config.schema import ComputeConfig, EnvConfig, JobConfig
from rlinf_isaac.config.task import filled_with
from rlinf_isaac.envs.host.crew import cpu_count
from rlinf_isaac.envs.lanes import lanes_of, make_lanes, processes_of
from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv
from rlinf_isaac.envs.mujoco.processes import StackCubeProcesses
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.tasks.registry import find_task

ENV = {"task": "stack2", "image_size": 16, "max_episode_steps": 8}


def config(backend: str = "mujoco", **compute) -> JobConfig:
    return JobConfig(env=EnvConfig(backend, **ENV), compute=ComputeConfig(**compute))


@pytest.mark.parametrize(
    ("job", "num_envs", "lanes"),
    [
        (config(), 8, 1),
        (config(device="cuda"), 8, 2),
        (config(device="cuda:1"), 2, 2),
        (config(device="cuda"), 25, 1),
        (config(device="cuda"), 1, 1),
        (config("isaaclab", device="cuda"), 8, 1),
        (config("isaaclab", device="cuda", lanes=2), 8, 2),
        (config(device="cuda", lanes=1), 8, 1),
        (config(lanes=2), 8, 2),
    ],
)
def test_a_gpu_has_two_lanes_where_they_pay(job, num_envs, lanes) -> None:
    assert lanes_of(job, num_envs) == lanes


def test_rows_of_any_task_of_isaaclab_play_in_one_lane() -> None:
    task = find_task("examples/tasks/isaaclab_lift_cube.yaml")
    job = filled_with(config(device="cuda"), task)
    assert lanes_of(job, 8) == 1
    another = replace(task, env=replace(task.env, kind="gymnasium"))
    assert lanes_of(filled_with(config(device="cuda"), another), 8) == 2


def test_a_gpu_is_fed_by_all_cpus() -> None:
    assert cpu_count() == len(os.sched_getaffinity(0))
    assert processes_of(config(device="cuda")) == cpu_count()
    assert processes_of(config()) is None
    assert processes_of(config(env_processes=3)) == processes_of(config(device="cuda", env_processes=3)) == 3


def test_one_lane_on_a_cpu_plays_in_this_process() -> None:
    lanes = make_lanes(config(), 2)
    assert [type(env) for env in lanes.envs] == [StackCubeVectorEnv]
    assert (lanes.num_envs, lanes.rows, lanes.task.name) == (2, 2, "stack2")
    lanes.close()


def test_each_lane_has_its_processes() -> None:
    lanes = make_lanes(config(lanes=2, env_processes=2), 6)
    assert [type(env) for env in lanes.envs] == [StackCubeProcesses] * 2
    assert [len(env.crew.processes) for env in lanes.envs] == [2, 2]
    assert (lanes.num_envs, lanes.rows) == (6, 3)
    assert lanes.identity == lanes.envs[1].identity
    lanes.close()
    lanes.close()
    with pytest.raises(SimulatorError, match="closed"):
        lanes.envs[1].reset(seed=0)


def test_two_lanes_of_one_process_each_are_apart_from_this_one() -> None:
    lanes = make_lanes(config(lanes=2), 2)
    assert [len(env.crew.processes) for env in lanes.envs] == [1, 1]
    lanes.close()
