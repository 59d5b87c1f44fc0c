"""An environment that costs nothing: the same observation always, and episodes that end when their time is up.

What an iteration of reinforcement learning takes without a simulator is measured in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from gymnasium import spaces

import rlinf_isaac.envs
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.envs.vector import (
    ChunkStep,
    EnvIdentity,
    ExpertPolicy,
    Observation,
    PolicyInput,
    TaskEnv,
    checked_actions,
)

WARM = 20


@contextmanager
def nothing_to_simulate() -> Iterator[None]:
    """Jobs play in `StillEnv`, whatever their config says. To be entered before an engine is imported."""
    made = rlinf_isaac.envs.make_env
    rlinf_isaac.envs.make_env = lambda config, num_envs, *_, **__: StillEnv(config, num_envs)
    try:
        yield
    finally:
        rlinf_isaac.envs.make_env = made


class StillEnv(TaskEnv):
    """Half of the episodes, by their seeds, are a success after their last step.

    The first episode of an env is only `WARM` steps long: kernels compile in the first iteration, and the second one is
    measured.
    """

    def __init__(self, config: JobConfig, num_envs: int) -> None:
        task = task_of(config)
        super().__init__(num_envs, task, spaces.Dict({}))
        self._steps = config.env.max_episode_steps
        self._limits = np.zeros(num_envs, np.int64)
        size, random = config.env.image_size, np.random.default_rng(0)
        self.identity = EnvIdentity("still", task.name, task.prompt(0), "own", size, task.control_hz, self._steps, "")
        images = random.integers(0, 256, (len(task.cameras), num_envs, size, size, 3), np.uint8)
        states = random.normal(size=(num_envs, task.state.dims)).astype(np.float32)
        self._seen = PolicyInput(dict(zip(task.cameras, images, strict=True)), states)

    def policy_input(self, observation: Observation) -> PolicyInput:
        return self._seen

    def chunk_step(
        self,
        actions: np.ndarray,
        active: np.ndarray,
        on_frame: Callable[[int, int], None] | None = None,
        images: bool = True,
    ) -> ChunkStep:
        actions, active = checked_actions(actions, active, self._done, self.task.action.dims)
        steps = np.where(active, np.minimum(actions.shape[1], self._limits - self.elapsed), 0)
        self.elapsed += steps
        ended = active & (self.elapsed >= self._limits)
        success = ended & np.array([bool((seed or 0) % 2) for seed in self.seeds])
        self._done |= ended
        rewards = np.zeros(actions.shape[:2], np.float32)
        rewards[success, steps[success] - 1] = 1
        failures = {name: np.zeros(self.num_envs, bool) for name in self.task.failures}
        return ChunkStep({}, rewards, steps, success, ended & ~success, failures)

    def observe(self, images: bool = True) -> Observation:
        return {}

    def render_frame(self, env_index: int, size: int) -> np.ndarray:
        return np.zeros((size, size, 3), np.uint8)

    def expert(self) -> ExpertPolicy:
        raise NotImplementedError("nobody acts well where nothing happens")

    def _start(self, seeds: Mapping[int, int]) -> None:
        for row in seeds:
            self._limits[row] = self._steps if self._limits[row] else min(WARM, self._steps)
