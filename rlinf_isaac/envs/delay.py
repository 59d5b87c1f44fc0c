"""An environment whose actions arrive late."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rlinf_isaac.envs.vector import ChunkStep, ExpertPolicy, Observation, PolicyInput, TaskEnv


class DelayedEnv(TaskEnv):
    """Any environment, in which the action of each control step is executed a fixed number of steps later.

    In the first steps of an episode, when none has arrived, `hold` is executed. A chunk still takes as many control
    steps as it has actions; the last of them are executed at the beginning of the next one.

    Attributes:
        env: the environment that executes.
        steps: control steps between an action and its execution.
    """

    def __init__(self, env: TaskEnv, steps: int, hold: np.ndarray) -> None:
        """
        Args:
            env: is closed with this one.
            steps: 1 or more.
            hold: (A,) the action that keeps the robot where it is.
        """
        space = env.single_observation_space
        assert isinstance(space, spaces.Dict)
        super().__init__(env.num_envs, env.task, space)
        self.env, self.steps, self.identity = env, steps, env.identity
        self.action_range, self.together, self.rates = env.action_range, env.together, env.rates
        # One and the same: both are changed in place.
        self.seeds, self.elapsed = env.seeds, env.elapsed
        self._hold = np.asarray(hold, np.float32)
        self._under_way = np.tile(self._hold, (env.num_envs, steps, 1))  # (N, steps, A), the oldest first

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, np.ndarray]]:
        result = self.env.reset(seed=seed, options=options)
        mask = (options or {}).get("reset_mask")
        self._under_way[slice(None) if mask is None else np.asarray(mask)] = self._hold
        return result

    def chunk_step(
        self,
        actions: np.ndarray,
        active: np.ndarray,
        on_frame: Callable[[int, int], None] | None = None,
        images: bool = True,
    ) -> ChunkStep:
        """See `TaskEnv.chunk_step`; `actions` are those that are sent now."""
        actions = np.asarray(actions, np.float32)
        line = np.concatenate([self._under_way, actions], axis=1)
        step = self.env.chunk_step(line[:, : actions.shape[1]], active, on_frame, images)
        self._under_way[active] = line[active, actions.shape[1] :]
        return step

    def observe(self, images: bool = True) -> Observation:
        return self.env.observe(images)

    def policy_input(self, observation: Observation) -> PolicyInput:
        return self.env.policy_input(observation)

    def policy_states(self, observation: Observation) -> np.ndarray:
        return self.env.policy_states(observation)

    def prompts(self) -> list[str]:
        return self.env.prompts()

    def render_frame(self, env_index: int, size: int) -> np.ndarray:
        return self.env.render_frame(env_index, size)

    def expert(self) -> ExpertPolicy:
        return self.env.expert()

    def close_extras(self, **kwargs: Any) -> None:
        self.env.close(**kwargs)

    def _start(self, seeds: Mapping[int, int]) -> None:
        raise AssertionError("`reset` is that of the environment inside")

    def _info(self) -> dict[str, np.ndarray]:
        return self.env._info()
