"""The environment under test, and what the checks do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded

from rlinf_isaac.envs.vector import ChunkStep, ExpertPolicy, Observation, PolicyInput, TaskEnv
from rlinf_isaac.ground.errors import Problem, RlinfIsaacError
from rlinf_isaac.tasks.paths import leaves
from rlinf_isaac.tasks.task import Task

ROWS = 2
BOTH = np.ones(ROWS, bool)
SEED = 7000
"""The first seed of the checks; any would do."""
PUSH_STEPS = 15
"""Control steps in which one dim of the action is held at an end of its range."""
DEFAULT_REACH = 0.1
"""Actions of an environment of which no range is known lie within this of 0."""

Row = dict[str, np.ndarray]
"""Path -> what an observation has there, of one row."""
Make = Callable[[int, int | None], TaskEnv]
"""Makes an environment of so many rows, whose episodes last at most so many control steps (None: as the job has it)."""


class EnvCrashed(Exception):
    """The environment raised what is no error of this project."""


@dataclass(frozen=True)
class Look:
    """What a check has seen.

    Attributes:
        seen: for people.
        problems: what is wrong.
        skipped: `seen` says why nothing was looked at.
    """

    seen: str
    problems: tuple[Problem, ...] = ()
    skipped: bool = False


@dataclass(frozen=True)
class Recording:
    """What the checks read of a dataset.

    Attributes:
        name: of the dataset.
        fps: frames per second.
        first_images: the model's camera -> (K, h, w, 3) uint8, the first frames of K episodes.
        first_states: (K, D) the states with them.
        actions: (M, A) the actions of all frames.
    """

    name: str
    fps: int
    first_images: dict[str, np.ndarray]
    first_states: np.ndarray
    actions: np.ndarray


@dataclass(frozen=True)
class Played:
    """A few control steps of every row.

    Attributes:
        rows: for each row its observations: the first, and one after every step (or after the chunk).
        rewards: for each row the rewards of its steps.
        outcomes: how the episode of each row ended; None where it did not.
    """

    rows: list[list[Row]]
    rewards: list[list[float]]
    outcomes: list[str | None]


@dataclass
class Bench:
    """An environment of `ROWS` rows, which is made when a check needs it, and again after it crashed.

    Attributes:
        make: makes it.
        task: its task.
        recording: of the dataset to compare with, or None.
        episodes: how many episodes of an evaluation the time is predicted for.
        action_chunk: after how many control steps a policy reads images.
        facts: numbers that the checks have measured, JSON-ready.
        identity: of the environment, as a dict, as soon as it was made.
    """

    make: Make
    task: Task
    recording: Recording | None = None
    episodes: int = 50
    action_chunk: int = 1
    facts: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    _env: TaskEnv | None = None

    @property
    def env(self) -> TaskEnv:
        """The environment."""
        if self._env is None:
            with foreign():
                self._env = self.make(ROWS, None)
            self.identity = self._env.identity.as_dict()
        return self._env

    def drop(self) -> None:
        """Close the environment, if there is one."""
        if self._env is not None:
            with suppress(Exception):
                self._env.close()
        self._env = None

    @contextmanager
    def another(self, rows: int, max_steps: int | None = None) -> Iterator[TaskEnv]:
        """A second environment. The first is closed, as a simulator may be too large for two of them."""
        self.drop()
        with foreign():
            env = self.make(rows, max_steps)
        try:
            yield env
        finally:
            with suppress(Exception):
                env.close()

    def seen(self, observation: Observation) -> PolicyInput:
        """What the policy reads."""
        with foreign():
            return self.env.policy_input(observation)

    def states(self, observation: Observation) -> np.ndarray:
        """(ROWS, D) the states that it reads; the observation may have no images."""
        with foreign():
            return self.env.policy_states(observation)

    def expert(self) -> ExpertPolicy:
        """The expert for the episodes that run."""
        with foreign():
            return self.env.expert()

    @cached_property
    def reach(self) -> tuple[np.ndarray, np.ndarray, str]:
        """The lowest and the highest action (A,) that the checks try, and where that is from."""
        clip, declared, dims = self.task.action.clip, self.env.action_range, self.task.action.dims
        if clip is not None:
            return np.full(dims, clip[0]), np.full(dims, clip[1]), "action.clip"
        if declared is not None and np.isfinite(declared).all():
            return *declared, "the environment's action space"
        if self.recording is not None:
            low, high = np.quantile(self.recording.actions, (0.01, 0.99), axis=0)
            return low, high, "the dataset"
        return np.full(dims, -DEFAULT_REACH), np.full(dims, DEFAULT_REACH), f"+-{DEFAULT_REACH}, as no range is known"

    def actions(self, steps: int, seed: int = 0, rows: int = ROWS) -> np.ndarray:
        """(rows, steps, A) random actions within reach."""
        low, high, _ = self.reach
        return np.random.default_rng(seed).uniform(low, high, (rows, steps, len(low))).astype(np.float32)

    def idle(self, steps: int, rows: int = ROWS) -> np.ndarray:
        """(rows, steps, A) actions of 0, or the nearest to it within reach."""
        low, high, _ = self.reach
        return np.tile(np.clip(0, low, high).astype(np.float32), (rows, steps, 1))

    @cached_property
    def pushes(self) -> list[tuple[PolicyInput, PolicyInput]]:
        """What the policy sees before and after each dim was pushed; first of all where none was.

        Both rows play the same episode. In row 0 the dim is held at its lowest value, in row 1 at its highest.
        """
        found = []
        for dim in (None, *range(self.task.action.dims)):
            actions = self.idle(PUSH_STEPS)
            if dim is not None:
                actions[0, :, dim], actions[1, :, dim] = (bound[dim] for bound in self.reach[:2])
            before = reset(self.env, [SEED, SEED])
            after = chunk(self.env, actions).observation
            found.append((self.seen(before), self.seen(after)))
        return found


@contextmanager
def foreign() -> Iterator[None]:
    """Around code of an environment: what it raises, and this project does not, becomes `EnvCrashed`."""
    try:
        yield
    except (RlinfIsaacError, EnvCrashed):
        raise
    except Exception as error:
        raise EnvCrashed(" ".join(f"{type(error).__name__}: {error}".split())[:500]) from error


def reset(env: TaskEnv, seeds: Sequence[int | None], mask: np.ndarray | None = None) -> Observation:
    """Start episodes, in the rows of the mask."""
    with foreign():
        return env.reset(seed=list(seeds), options=None if mask is None else {"reset_mask": mask})[0]


def chunk(env: TaskEnv, actions: np.ndarray, active: np.ndarray | None = None, images: bool = True) -> ChunkStep:
    """Play an action chunk in the active rows (all)."""
    with foreign():
        return env.chunk_step(actions, np.ones(env.num_envs, bool) if active is None else active, images=images)


def play(env: TaskEnv, seeds: Sequence[int], actions: np.ndarray, *, whole: bool = False) -> Played:
    """Start an episode in every row and play these actions (N, T, A), step by step or as a whole chunk. A row stops
    where its episode ends."""
    count = env.num_envs
    observation = reset(env, seeds)
    played = Played([[row_of(observation, i)] for i in range(count)], [[] for _ in range(count)], [None] * count)
    for part in [actions] if whole else [actions[:, t : t + 1] for t in range(actions.shape[1])]:
        active = np.array([outcome is None for outcome in played.outcomes])
        if not active.any():
            break
        step = chunk(env, part, active)
        for i in np.flatnonzero(active).tolist():
            played.rows[i].append(row_of(step.observation, i))
            played.rewards[i] += step.rewards[i, : step.steps[i]].tolist()
            played.outcomes[i] = step.outcome(i)
    return played


def refused(env: TaskEnv, actions: np.ndarray, error: type[Exception]) -> bool:
    """Whether the environment refuses these actions in this way."""
    try:
        with foreign():
            env.chunk_step(actions, np.ones(env.num_envs, bool))
    except EnvCrashed as crash:
        return isinstance(crash.__cause__, error)
    return False


def needs_reset(env: TaskEnv, actions: np.ndarray) -> bool:
    """Whether the environment refuses to step rows whose episodes are over."""
    return refused(env, actions, ResetNeeded)


def row_of(observation: Observation, i: int) -> Row:
    """What an observation has of one row."""
    return {path: np.array(np.asarray(value)[i]) for path, value in leaves(observation).items()}


def differing(one: Row, other: Row) -> list[str]:
    """The paths at which two rows are not equal, bit for bit; NaN equals NaN."""
    if one.keys() != other.keys():
        return sorted(one.keys() ^ other.keys())
    return [path for path in one if not _same(one[path], other[path])]


def first_difference(one: Played, i: int, other: Played, j: int) -> str | None:
    """Where the episode of row `i` first differs from that of row `j` of another play; None where they are equal."""
    for t, (before, after) in enumerate(zip(one.rows[i], other.rows[j], strict=False)):
        if paths := differing(before, after):
            return f"{_listed(paths)} differ{'s' if len(paths) == 1 else ''} {_when(t)}"
    if one.rewards[i] != other.rewards[j]:
        return "the rewards differ"
    if one.outcomes[i] != other.outcomes[j] or len(one.rows[i]) != len(other.rows[j]):
        return f"it ends with {one.outcomes[i]} or {other.outcomes[j]}, or at another step"
    return None


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths[:4]) + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")


def _when(step: int) -> str:
    return "at once after the reset" if step == 0 else f"after {step} control step{'' if step == 1 else 's'}"
