"""The reset distribution of the contract, drawn from a generator that is seeded with the episode's seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlinf_isaac.envs.stack_cube import contract


class ResetState(NamedTuple):
    """The initial state of an episode.

    Attributes:
        joint_pos: (9,) arm and fingers, radians and metres.
        cube_xy: (cubes, 2) metres.
        cube_yaw: (cubes,) radians.
    """

    joint_pos: np.ndarray
    cube_xy: np.ndarray
    cube_yaw: np.ndarray


def sample_reset(seed: int, num_cubes: int, joint_limits: np.ndarray) -> ResetState:
    """The initial state of the episode with this seed. It depends only on the arguments.

    Arm joints are the default plus normal noise, clamped to `joint_limits` (7, 2); the fingers are open. Cubes are
    uniform in a rectangle and are drawn again until their centres are far enough apart. As in IsaacLab, the last draw
    is kept after 5000 tries.
    """
    rng = np.random.default_rng(seed)
    joint_pos = np.array(contract.DEFAULT_JOINT_POS)
    arm = slice(contract.NUM_ARM_JOINTS)
    noise = rng.normal(0.0, contract.RESET_JOINT_STD, contract.NUM_ARM_JOINTS)
    joint_pos[arm] = np.clip(joint_pos[arm] + noise, joint_limits[:, 0], joint_limits[:, 1])
    return ResetState(joint_pos, _sample_positions(rng, num_cubes), rng.uniform(*contract.RESET_CUBE_YAW, num_cubes))


def _sample_positions(rng: np.random.Generator, num_cubes: int) -> np.ndarray:
    low, high = np.transpose([contract.RESET_CUBE_X, contract.RESET_CUBE_Y])
    positions = np.empty((num_cubes, 2))
    for i in range(num_cubes):
        for _ in range(contract.RESET_MAX_TRIES):
            positions[i] = rng.uniform(low, high)
            distances = np.linalg.norm(positions[:i] - positions[i], axis=-1)
            if (distances > contract.RESET_MIN_SEPARATION).all():
                break
    return positions
