"""What the vector environments of all backends have in common: the result of a chunk, spaces, and what they refuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from rlinf_isaac.envs import contract

Observation = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class ChunkStep:
    """What came of one action chunk.

    Attributes:
        observation: after the chunk; of an env that was done, the terminal one.
        rewards: (N, T) float32, zero after an env's end.
        steps: (N,) control steps executed.
        success, dropped, time_out: (N,) state of the terms after the last executed step.
        subtasks: flag -> (N,) reached at any step of the chunk.
    """

    observation: Observation
    rewards: np.ndarray
    steps: np.ndarray
    success: np.ndarray
    dropped: np.ndarray
    time_out: np.ndarray
    subtasks: dict[str, np.ndarray]


def observation_space(task: contract.TaskSpec, image_size: int) -> spaces.Dict:
    """The space of one env's observation."""

    def box(spec: contract.ArraySpec) -> spaces.Box:
        low, high = (-np.inf, np.inf) if spec.dtype == np.float32 else (0, 255 if spec.dtype == np.uint8 else 1)
        return spaces.Box(low, high, spec.shape, spec.dtype.type)

    groups = contract.observation_spec(task, image_size)
    return spaces.Dict(
        {group: spaces.Dict({key: box(spec) for key, spec in specs.items()}) for group, specs in groups.items()}
    )


def rows_to_reset(
    seed: int | Sequence[int | None] | None, options: dict[str, Any] | None, num_envs: int
) -> tuple[np.ndarray, Sequence[int | None]]:
    """Which envs a call of ``reset`` is about, (N,) bool, and the seed of each (None: to be drawn)."""
    rows = np.ones(num_envs, bool)
    if options and options.get("reset_mask") is not None:
        rows = _mask(options["reset_mask"], num_envs, "reset_mask")
    seeds = [seed + i for i in range(num_envs)] if isinstance(seed, int | np.integer) else seed
    if seeds is None:
        seeds = [None] * num_envs
    if len(seeds) != num_envs:
        raise ValueError(f"got {len(seeds)} seeds for {num_envs} envs")
    return rows, seeds


def checked_actions(actions: np.ndarray, active: np.ndarray, done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The arguments of ``chunk_step``, (N, T, 7) float32 and (N,) bool, if they can be carried out.

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
    """Where a mask is set."""
    return np.flatnonzero(mask).tolist()


def _mask(values: np.ndarray, count: int, name: str) -> np.ndarray:
    mask = np.asarray(values)
    if mask.shape != (count,) or mask.dtype != np.bool_:
        raise ValueError(f"{name} must be a bool array of shape ({count},), not {mask.dtype} {mask.shape}")
    return mask
