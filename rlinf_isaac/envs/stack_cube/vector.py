"""The common part of the vector environments of all backends: spaces, seeds, results, and checks of arguments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rlinf_isaac.envs.stack_cube import contract

try:
    from gymnasium.vector import AutoresetMode

    NO_AUTORESET: Any = AutoresetMode.DISABLED
except ImportError:  # gymnasium before 1.1 does not read this entry
    NO_AUTORESET = "Disabled"

Observation = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class ChunkStep:
    """The result of one action chunk.

    Attributes:
        observation: observation after the chunk; for an env that is done, the terminal one.
        rewards: (N, T) float32, zero after an env's end.
        steps: (N,) control steps executed.
        success, dropped, time_out: (N,) values of the terms after the last executed step.
        subtasks: name -> (N,), whether the subtask was reached at any step of the chunk.
    """

    observation: Observation
    rewards: np.ndarray
    steps: np.ndarray
    success: np.ndarray
    dropped: np.ndarray
    time_out: np.ndarray
    subtasks: dict[str, np.ndarray]


class StackCubeEnv(VectorEnv):
    """Franka stack-cube with the contract of `rlinf_isaac.envs.stack_cube.contract`, on some simulator.

    An episode depends only on its seed and actions, not on the index of the env, the number of envs, earlier episodes
    or other envs. There is no autoreset: `step` and `chunk_step` return terminal observations, and stepping an env that
    is done raises `gymnasium.error.ResetNeeded` until `reset` (optionally with ``options={"reset_mask": mask}``) starts
    a new episode. The reward is 1 on the step that reaches success, which ends the episode, and 0 otherwise.

    Attributes:
        identity: the properties on which observations and episodes depend.
        task: the stacking task.
        seeds: seeds of the envs' episodes; None before the first episode.
        elapsed: (N,) control steps so far in the envs' episodes.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (declared so by the base class)
        "autoreset_mode": NO_AUTORESET,
        "render_fps": contract.CONTROL_HZ,
    }
    closed = False  # gymnasium 0.29 sets it in its constructor, which is not called here
    identity: contract.EnvIdentity

    def __init__(self, num_envs: int, task: contract.TaskSpec, image_size: int) -> None:
        self.num_envs, self.task = num_envs, task
        self.single_observation_space = observation_space(task, image_size)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.single_action_space = spaces.Box(-np.inf, np.inf, (contract.ACTION_DIM,), np.float32)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.seeds: list[int | None] = [None] * num_envs
        self.elapsed = np.zeros(num_envs, np.int64)
        self._done = np.ones(num_envs, bool)
        self._success, self._dropped, self._time_out = np.zeros((3, num_envs), bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, np.ndarray]]:
        """Start new episodes.

        Args:
            seed: one seed per env; an int s gives env i the seed s + i; None draws seeds from `np_random`.
            options: ``{"reset_mask": bool (N,)}`` resets only these envs; the others and their observations stay.

        Returns:
            Observation of all envs, and info as in `step`.
        """
        rows = np.ones(self.num_envs, bool)
        if options and options.get("reset_mask") is not None:
            rows = _mask(options["reset_mask"], self.num_envs, "reset_mask")
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
        if seeds is None:
            seeds = [None] * self.num_envs
        if len(seeds) != self.num_envs:
            raise ValueError(f"got {len(seeds)} seeds for {self.num_envs} envs")
        row_seeds = {}
        for i in indices(rows):
            seed_i = seeds[i]
            row_seeds[i] = int(self.np_random.integers(2**31)) if seed_i is None else int(seed_i)
            self.seeds[i] = row_seeds[i]
        self.elapsed[rows] = 0
        for flags in (self._done, self._success, self._dropped, self._time_out):
            flags[rows] = False
        if row_seeds:
            self._start(row_seeds)
        return self.observe(), self._info()

    def step(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """One control step of every env.

        Args:
            actions: (N, 7).

        Returns:
            observation, reward (N,) float32, terminated (N,), truncated (N,), info with ``success``, ``dropped`` and
            ``time_out`` (N,).

        Raises:
            ResetNeeded: an env is done, or was never reset.
        """
        chunk = self.chunk_step(np.asarray(actions)[:, None], np.ones(self.num_envs, bool))
        info = self._info()
        return chunk.observation, chunk.rewards[:, 0], info["success"] | info["dropped"], info["time_out"], info

    @abstractmethod
    def chunk_step(
        self,
        actions: np.ndarray,
        active: np.ndarray,
        on_frame: Callable[[int, int], None] | None = None,
        images: bool = True,
    ) -> ChunkStep:
        """Up to T control steps of every active env. An env stops when it is done. Images are rendered only at the end.

        Args:
            actions: (N, T, 7).
            active: (N,) bool, the envs to step. The others keep their rows of the observation.
            on_frame: called as ``on_frame(i, t)`` after control step t of env i, for videos.
            images: whether to render. If False, the observation has no camera images.

        Raises:
            ResetNeeded: an active env is done, or was never reset.
            ValueError: an array has the wrong shape, or an action is NaN or infinite.
        """

    @abstractmethod
    def observe(self, images: bool = True) -> Observation:
        """The observation of all envs after their last reset or step, as new arrays; images only with `images`."""

    @abstractmethod
    def render_frame(self, env_index: int, size: int) -> np.ndarray:
        """A frame for a video: (size, 2 x size, 3) uint8, table camera left, wrist camera right."""

    @abstractmethod
    def _start(self, seeds: Mapping[int, int]) -> None:
        """Start new episodes. `seeds` maps the index of an env to its seed and is not empty."""

    def close(self, **kwargs: Any) -> None:
        """Free the simulator's resources. Calling this twice is allowed."""
        if not self.closed:
            self.close_extras(**kwargs)
            self.closed = True

    def _info(self) -> dict[str, np.ndarray]:
        return {
            "success": self._success.copy(),
            "dropped": self._dropped.copy(),
            "time_out": self._time_out.copy(),
        }


def observation_space(task: contract.TaskSpec, image_size: int) -> spaces.Dict:
    """The space of one env's observation."""

    def box(spec: contract.ArraySpec) -> spaces.Box:
        low, high = (-np.inf, np.inf) if spec.dtype == np.float32 else (0, 255 if spec.dtype == np.uint8 else 1)
        return spaces.Box(low, high, spec.shape, spec.dtype.type)

    groups = contract.observation_spec(task, image_size)
    return spaces.Dict(
        {group: spaces.Dict({key: box(spec) for key, spec in specs.items()}) for group, specs in groups.items()}
    )


def checked_actions(actions: np.ndarray, active: np.ndarray, done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks the arguments of ``chunk_step`` and returns them as (N, T, 7) float32 and (N,) bool.

    Raises:
        ResetNeeded: an active env is `done` (N,).
        ValueError: an array has the wrong shape, or an action of an active env is NaN or infinite.
    """
    actions, num_envs = np.asarray(actions, np.float32), len(done)
    active = _mask(active, num_envs, "active")
    if actions.ndim != 3 or actions.shape[::2] != (num_envs, contract.ACTION_DIM):
        raise ValueError(f"actions are {actions.shape}, not ({num_envs}, T, {contract.ACTION_DIM})")
    unusable = active & ~np.isfinite(actions).all(axis=(1, 2))
    if unusable.any():
        raise ValueError(f"an action of env {indices(unusable)[0]} is not finite")
    if (active & done).any():
        raise ResetNeeded(f"envs {indices(active & done)} are done or were never reset")
    return actions, active


def indices(mask: np.ndarray) -> list[int]:
    """The indices at which a mask is True."""
    return np.flatnonzero(mask).tolist()


def _mask(values: np.ndarray, count: int, name: str) -> np.ndarray:
    mask = np.asarray(values)
    if mask.shape != (count,) or mask.dtype != np.bool_:
        raise ValueError(f"{name} must be a bool array of shape ({count},), not {mask.dtype} {mask.shape}")
    return mask
