"""Both success rules on one episode: a stack that stands for a moment, and one that stays."""

from __future__ import annotations

import numpy as np
import pytest

from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.tasks.shipped.stack_cube import stack_cube
from rlinf_isaac.tasks.success_rules import TOUCHED_AT_END, TOUCHED_ONCE


def put_on_top(env: StackCubeVectorEnv, speed: float) -> None:
    """Put the red cube on the blue one, moving sideways at this speed in m/s."""
    data = env._simulation.data[0]
    lower, upper = (data.joint(f"cube_{number}") for number in (1, 2))
    upper.qpos[:] = lower.qpos
    upper.qpos[2] += contract.CUBE_SIZE
    upper.qvel[:] = (speed, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(("speed", "success", "once", "end"), [(0.0, True, 1, 1), (0.8, False, 1, 0)])
def test_what_slides_off_was_touched_once(speed, success, once, end):
    env = StackCubeVectorEnv(1, stack_cube("stack2"), image_size=16, renderer="rays")
    env.reset(seed=[5])
    put_on_top(env, speed)
    hold = np.zeros((1, 12, contract.ACTION_DIM), np.float32)
    step = env.chunk_step(hold, np.ones(1, bool), images=False)
    assert bool(step.success[0]) is success
    assert {name: values[0] for name, values in step.extras.items()} == {TOUCHED_ONCE: once, TOUCHED_AT_END: end}
    env.reset(seed=[6])
    step = env.chunk_step(hold[:, :1], np.ones(1, bool), images=False)
    assert {name: values[0] for name, values in step.extras.items()} == {TOUCHED_ONCE: 0, TOUCHED_AT_END: 0}
    env.close()
