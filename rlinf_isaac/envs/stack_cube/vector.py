"""The common part of the stack-cube environments of all backends: spaces, terms, and what the policy reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.envs.stack_cube.expert import EXPERT_VERSION, ScriptedExpert
from rlinf_isaac.envs.vector import ExpertPolicy, Observation, TaskEnv, indices
from rlinf_isaac.tasks.success_rules import TOUCHED_AT_END, TOUCHED_ONCE
from rlinf_isaac.tasks.task import Task

STATE_PREFIX = "stack_cube:"
"""What the state's path begins with; the name of a state layout follows."""


class StackCubeEnv(TaskEnv):
    """Franka stack-cube with the contract of `rlinf_isaac.envs.stack_cube.contract`, on some simulator.

    The reward is 1 on the step that reaches success, which ends the episode, and 0 otherwise.

    Attributes:
        stacking: the stacking task.
    """

    def __init__(self, num_envs: int, task: Task, image_size: int) -> None:
        self.stacking = contract.TASKS[task.name]
        super().__init__(num_envs, task, observation_space(self.stacking, image_size))
        self._success, self._dropped, self._time_out = np.zeros((3, num_envs), bool)
        # Whether the stack has stood, be it at rest or not, at any control step of the episode, and at the last one.
        self._touched, self._stands = np.zeros((2, num_envs), bool)

    def policy_states(self, observation: Observation) -> np.ndarray:
        layout = self.task.state.env[0].removeprefix(STATE_PREFIX)
        return contract.policy_state(observation["policy"], layout)

    def expert(self) -> ExpertPolicy:
        return StackCubeExpert(self.num_envs)

    def _clear(self, rows: np.ndarray) -> None:
        for flags in (self._success, self._dropped, self._time_out, self._touched, self._stands):
            flags[rows] = False

    def _info(self) -> dict[str, np.ndarray]:
        return {
            "success": self._success.copy(),
            "dropped": self._dropped.copy(),
            "time_out": self._time_out.copy(),
        }

    def _ended(self) -> dict[str, Any]:
        """The terms as `ChunkStep` has them."""
        failures = {"drop": self._dropped.copy()}
        rules = {TOUCHED_ONCE: self._touched.astype(float), TOUCHED_AT_END: self._stands.astype(float)}
        return {
            "success": self._success.copy(),
            "failures": failures,
            "time_out": self._time_out.copy(),
            "extras": rules,
        }


class StackCubeExpert:
    """A `ScriptedExpert` for every row of an environment."""

    version = EXPERT_VERSION

    def __init__(self, num_envs: int) -> None:
        self._experts = [ScriptedExpert() for _ in range(num_envs)]

    def act(self, observation: Observation, active: np.ndarray) -> np.ndarray:
        """See `ExpertPolicy.act`."""
        actions = np.zeros((len(self._experts), contract.ACTION_DIM), np.float32)
        for i in indices(active):
            actions[i] = self._experts[i].act(observation["policy"], i)
        return actions


def observation_space(spec: contract.TaskSpec, image_size: int) -> spaces.Dict:
    """The space of one env's observation."""

    def box(array: contract.ArraySpec) -> spaces.Box:
        low, high = (-np.inf, np.inf) if array.dtype == np.float32 else (0, 255 if array.dtype == np.uint8 else 1)
        return spaces.Box(low, high, array.shape, array.dtype.type)

    groups = contract.observation_spec(spec, image_size)
    return spaces.Dict(
        {group: spaces.Dict({key: box(array) for key, array in arrays.items()}) for group, arrays in groups.items()}
    )
