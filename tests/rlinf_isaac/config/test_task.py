from __future__ import annotations

from dataclasses import asdict

import pytest

from rlinf_isaac.config import build_config, load_config
from rlinf_isaac.config.task import STACK_CUBES, stack_cube, task_of
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.tasks.registry import task_names

TASK = """
name: cup
prompt: Put it there.
control_hz: 15
cameras: {base_0_rgb: {dataset: observation.images.base, env: pixels}}
state: {dims: 5, env: agent_pos}
action: {dims: 4, delta: "3,-1"}
env: {kind: gymnasium, make: Cup-v0, max_steps: 80}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cup.yaml"
    path.write_text(TASK)
    return path


def test_stack_cube_leaves_the_config_as_it_is():
    config = load_config("tiny")
    assert config.task == {}
    assert task_of(config) == stack_cube("stack2", "proprio+cubes")
    assert set(STACK_CUBES) <= set(task_names())


def test_a_file_decides_what_a_task_decides(file):
    config = load_config("tiny", [f"env.task={file}"])
    assert (config.env.task, config.env.backend, config.env.max_episode_steps) == ("cup", "gymnasium", 80)
    assert (config.policy.env_action_dim, config.policy.delta_actions, config.policy.asset_id) == (4, "3,-1", "cup")
    assert task_of(config).state.dims == 5


def test_what_a_person_sets_stays(file):
    config = load_config("tiny", [f"env.task={file}", "env.max_episode_steps=160", "policy.asset_id=mine"])
    assert (config.env.max_episode_steps, config.policy.asset_id) == (160, "mine")


def test_the_description_travels_with_a_recorded_config(file):
    recorded = asdict(load_config("tiny", [f"env.task={file}"]))
    file.unlink()
    again = build_config(recorded, "config.json", ["eval.episodes=3"])
    assert task_of(again).name == "cup"
    assert again.env.max_episode_steps == 80


def test_another_task_on_top_of_a_recorded_one(file):
    recorded = asdict(load_config("tiny", [f"env.task={file}"]))
    config = build_config(recorded, "config.json", ["env.task=stack3"])
    assert (config.task, config.env.backend, config.policy.env_action_dim) == ({}, "mujoco", 7)
    assert task_of(config).name == "stack3"


def test_a_task_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(InvalidJob, match="there is no task 'stak2'") as caught:
        load_config("tiny", ["env.task=stak2"])
    assert caught.value.problems[0].code == "unknown-task"
    assert "stack2" in caught.value.problems[0].cure
