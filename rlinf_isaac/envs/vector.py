"""The vector environment of a task: spaces, seeds, results, and checks of arguments; the same for every simulator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rlinf_isaac.envs.identity import EnvIdentity as EnvIdentity
from rlinf_isaac.tasks.paths import read_path
from rlinf_isaac.tasks.task import Task

try:
    from gymnasium.vector import AutoresetMode

    NO_AUTORESET: Any = AutoresetMode.DISABLED
except ImportError:  # gymnasium before 1.1 does not read this entry
    NO_AUTORESET = "Disabled"

Observation = dict[str, Any]
"""Arrays (N, ...), or dicts of them; `tasks.paths` reads it."""


class PolicyInput(NamedTuple):
    """What a policy reads of an observation.

    Attributes:
        images: the model's camera -> (N, h, w, 3) uint8.
        states: (N, D) float32 in robot units.
    """

    images: dict[str, np.ndarray]
    states: np.ndarray


class ExpertPolicy(Protocol):
    """A scripted policy for the episodes that run in an environment when it is made.

    Attributes:
        version: recorded in datasets.
    """

    version: str

    def act(self, observation: Observation, active: np.ndarray) -> np.ndarray:
        """(N, A) float32 actions; rows that are not `active` (N,) have any value."""
        ...


@dataclass(frozen=True)
class ChunkStep:
    """The result of one action chunk.

    Attributes:
        observation: observation after the chunk; for an env that is done, the terminal one.
        rewards: (N, T) float32, zero after an env's end.
        steps: (N,) control steps executed.
        success, time_out: (N,) values of the terms after the last executed step.
        failures: outcome -> (N,) value of the term that ends an episode so.
        subtasks: name -> (N,), whether the subtask was reached at any step of the chunk.
        extras: name -> (N,) float, further numbers of the episode after the last executed step; NaN: not known.
    """

    observation: Observation
    rewards: np.ndarray
    steps: np.ndarray
    success: np.ndarray
    time_out: np.ndarray
    failures: Mapping[str, np.ndarray]
    subtasks: Mapping[str, np.ndarray] = field(default_factory=dict)
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def terminated(self) -> np.ndarray:
        """(N,) whether the episode ended otherwise than by its time."""
        return np.logical_or.reduce([self.success, *self.failures.values()])

    def outcome(self, row: int) -> str | None:
        """How the episode of a row ended: ``success``, a failure's name or ``timeout``; None while it runs."""
        ended = {"success": self.success, **self.failures, "timeout": self.time_out}
        return next((name for name, flags in ended.items() if flags[row]), None)


class TaskEnv(VectorEnv):
    """N environments of one task.

    An episode depends only on its seed and actions, not on the index of the env, the number of envs, earlier episodes
    or other envs. There is no autoreset: `step` and `chunk_step` return terminal observations, and stepping an env that
    is done raises `gymnasium.error.ResetNeeded` until `reset` (optionally with ``options={"reset_mask": mask}``) starts
    a new episode.

    Attributes:
        task: what is played.
        identity: the properties on which observations and episodes depend.
        seeds: seeds of the envs' episodes; None before the first episode.
        elapsed: (N,) control steps so far in the envs' episodes.
        action_range: the lowest and the highest action, (A,) each, that the simulator says it takes; None: it does not
            say.
        together: whether the episodes of all rows begin at the same time; one alone cannot be started.
        rates: the simulator's own name of a rate -> control steps per second by that.
    """

    closed = False  # gymnasium 0.29 sets it in its constructor, which is not called here
    identity: EnvIdentity
    action_range: tuple[np.ndarray, np.ndarray] | None = None
    together = False
    rates: Mapping[str, float] = MappingProxyType({})

    def __init__(self, num_envs: int, task: Task, observation_space: spaces.Dict) -> None:
        self.num_envs, self.task = num_envs, task
        self.metadata = {"autoreset_mode": NO_AUTORESET, "render_fps": task.control_hz}
        self.single_observation_space = observation_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.single_action_space = spaces.Box(-np.inf, np.inf, (task.action.dims,), np.float32)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.seeds: list[int | None] = [None] * num_envs
        self.elapsed = np.zeros(num_envs, np.int64)
        self._done = np.ones(num_envs, bool)

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
            rows = as_mask(options["reset_mask"], self.num_envs, "reset_mask")
            if self.together and not rows.all():
                raise ValueError("episodes of this environment begin in all rows together")
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
        self._done[rows] = False
        self._clear(rows)
        if row_seeds:
            self._start(row_seeds)
        return self.observe(), self._info()

    def step(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """One control step of every env.

        Args:
            actions: (N, A).

        Returns:
            observation, reward (N,) float32, terminated (N,), truncated (N,), and info.

        Raises:
            ResetNeeded: an env is done, or was never reset.
        """
        chunk = self.chunk_step(np.asarray(actions)[:, None], np.ones(self.num_envs, bool))
        return chunk.observation, chunk.rewards[:, 0], chunk.terminated, chunk.time_out, self._info()

    def policy_input(self, observation: Observation) -> PolicyInput:
        """What the task's policy reads of an observation of all envs."""
        images = {slot: read_path(observation, str(camera.env)) for slot, camera in self.task.cameras.items()}
        return PolicyInput(images, self.policy_states(observation))

    def policy_states(self, observation: Observation) -> np.ndarray:
        """`PolicyInput.states` of an observation of all envs, which may have no images."""
        parts = [np.asarray(read_path(observation, path)).reshape(self.num_envs, -1) for path in self.task.state.env]
        return np.concatenate(parts, axis=-1).astype(np.float32)

    def prompts(self) -> list[str]:
        """The instruction of each env's episode."""
        return [self.task.prompt(seed or 0) for seed in self.seeds]

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
            actions: (N, T, A).
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
        """A frame for a video: (size, width, 3) uint8, the task's cameras side by side."""

    @abstractmethod
    def expert(self) -> ExpertPolicy:
        """The task's scripted expert, for the episodes that run now.

        Raises:
            SimulatorError: the task has none.
        """

    @abstractmethod
    def _start(self, seeds: Mapping[int, int]) -> None:
        """Start new episodes. `seeds` maps the index of an env to its seed and is not empty."""

    def _clear(self, rows: np.ndarray) -> None:
        """Forget how the episodes of these rows (N,) ended."""

    def _info(self) -> dict[str, np.ndarray]:
        """What `reset` and `step` give as info."""
        return {}

    def close(self, **kwargs: Any) -> None:
        """Free the simulator's resources. Calling this twice is allowed."""
        if not self.closed:
            self.close_extras(**kwargs)
            self.closed = True


def checked_actions(
    actions: np.ndarray, active: np.ndarray, done: np.ndarray, dims: int
) -> tuple[np.ndarray, np.ndarray]:
    """Checks the arguments of ``chunk_step`` and returns them as (N, T, dims) float32 and (N,) bool.

    Raises:
        ResetNeeded: an active env is `done` (N,).
        ValueError: an array has the wrong shape, or an action of an active env is NaN or infinite.
    """
    actions, num_envs = np.asarray(actions, np.float32), len(done)
    active = as_mask(active, num_envs, "active")
    if actions.ndim != 3 or actions.shape[::2] != (num_envs, dims):
        raise ValueError(f"actions are {actions.shape}, not ({num_envs}, T, {dims})")
    unusable = active & ~np.isfinite(actions).all(axis=(1, 2))
    if unusable.any():
        raise ValueError(f"an action of env {indices(unusable)[0]} is not finite")
    if (active & done).any():
        raise ResetNeeded(f"envs {indices(active & done)} are done or were never reset")
    return actions, active


def indices(mask: np.ndarray) -> list[int]:
    """The indices at which a mask is True."""
    return np.flatnonzero(mask).tolist()


def as_mask(values: np.ndarray, count: int, name: str) -> np.ndarray:
    """`values` if it is a bool array of this length. Raises ValueError otherwise."""
    mask = np.asarray(values)
    if mask.shape != (count,) or mask.dtype != np.bool_:
        raise ValueError(f"{name} must be a bool array of shape ({count},), not {mask.dtype} {mask.shape}")
    return mask
