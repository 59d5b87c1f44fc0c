"""Tasks of the real IsaacLab by their ids: the lift task of examples/tasks, and the stack task with its own cameras.

What every environment of examples/tasks must do is in tests/examples/test_tasks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rlinf_isaac.envs.isaaclab.task_env import LabEnv
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.task import Task

pytestmark = pytest.mark.isaaclab

TASKS = Path(__file__).parents[4] / "examples" / "tasks"
STACK = "IsaacContrib-Stack-Cube-Franka-IK-Rel-Visuomotor"
BOTH = np.ones(2, bool)


def lift(options: dict[str, Any] | None = None, **env: Any) -> Task:
    """The example, whose sections `env` and ``env.options`` have these entries."""
    values = yaml.safe_load((TASKS / "isaaclab_lift_cube.yaml").read_text())
    values["env"] |= {"options": values["env"]["options"] | (options or {}), **env}
    return from_dict(values, "a test", TASKS)


@pytest.fixture
def start(env_python) -> Iterator[Callable[[Task], LabEnv]]:
    started = []

    def make(task: Task) -> LabEnv:
        started.append(LabEnv(2, task, env_python=env_python))
        return started[-1]

    yield make
    for each in started:
        each.close()


def actions(steps: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.2, 0.2, (2, steps, 7)).astype(np.float32)


def test_a_task_without_cameras_and_success_gets_both(start) -> None:
    env = start(lift())
    identity = env.identity
    assert identity.backend == "isaaclab-3.0.0/newton_mjwarp/cpu"
    assert (identity.renderer, identity.image_size, identity.control_hz) == ("newton", 64, 50)
    assert env.rates == {"step_dt": 50.0}
    observation, _ = env.reset(seed=[3, 4])
    assert sorted(observation["cameras"]) == ["scene", "wrist"]
    assert observation["policy"]["joint_pos"].shape == (2, 9), "a term of a group that IsaacLab joins"
    extras = env.chunk_step(actions(2), BOTH).extras
    assert {"term/success", "term/object_dropping", "object_pose/position_error"} <= set(extras)


def test_a_goal_that_is_drawn_anew_depends_on_the_seed_alone(start) -> None:
    """Every ten control steps, in an episode beside another one or beside its like."""
    env = start(lift({"overrides": ["env.commands.object_pose.resampling_time_range=[0.2,0.2]"]}))

    def goals(seeds: list[int]) -> np.ndarray:
        seen = [env.reset(seed=seeds)[0]["policy"]["target_object_position"]]
        for t in range(25):
            step = env.chunk_step(actions(25)[:, t : t + 1], BOTH, images=False)
            seen.append(step.observation["policy"]["target_object_position"])
        return np.stack(seen, axis=1)

    first, twins, beside = goals([3, 4]), goals([3, 3]), goals([8, 3])
    assert len(np.unique(first[0], axis=0)) == 3
    np.testing.assert_array_equal(twins[0], first[0])
    np.testing.assert_array_equal(twins[1], first[0])
    np.testing.assert_array_equal(beside[1], first[0])
    assert (beside[0] != first[0]).any()


def test_the_images_of_a_task_keep_their_paths_and_are_drawn_when_asked_for(start) -> None:
    cameras = {"table_cam": {"width": 48, "height": 32}, "wrist_cam": {"prim": "Robot/panda_hand/wrist_cam"}}
    values = lift().as_dict() | {"state": {"dims": 3, "env": ["policy/eef_pos"]}, "expert": None}
    values["cameras"] = {"base_0_rgb": {"dataset": "front", "env": "policy/table_cam"}}
    options = {"assets": "standin", "cameras": cameras}
    values["env"] |= {"make": STACK, "options": options, "failure": "term:cube_1_dropping", "sources": {}}
    env = start(from_dict(values | {"control_hz": 20}, "a test"))
    assert env.rates == {"step_dt": 20.0}
    observation, _ = env.reset(seed=[1, 2])
    policy = observation["policy"]
    assert policy["table_cam"].shape == (2, 32, 48, 3)
    assert policy["wrist_cam"].shape == (2, 200, 200, 3), "as the task has it"
    assert (policy["cube_positions"][0] != policy["cube_positions"][1]).any(), "every episode starts alike"
    assert "table_cam" not in env.chunk_step(actions(1), BOTH, images=False).observation["policy"]


@pytest.mark.parametrize(
    ("env", "found"),
    [
        ({"make": "IsaacContrib-Lift-Cube-Frank-IK-Rel"}, r"\[env-not-made\].*nearest.*IsaacContrib-Lift-Cube-Franka"),
        ({"success": "term:sucess"}, r"\[no-such-term\].*task has.*term:success(.|\n)*did you mean term:success"),
        ({"failure": "info.object_pose/eror>1"}, r"\[no-such-term\].*info.object_pose/position_error"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(start, env, found) -> None:
    with pytest.raises(SimulatorError, match=found):
        start(lift(**env))
