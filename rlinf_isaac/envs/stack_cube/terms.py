"""Success, drop and subtask terms of the contract, as numpy functions of the object states of N environments."""

from __future__ import annotations

import numpy as np

from rlinf_isaac.envs.stack_cube import contract


def gripper_open(gripper_pos: np.ndarray) -> np.ndarray:
    """(N,) whether both fingers are fully open. `gripper_pos` (N, 2) is (+finger 1, -finger 2).

    Upstream: ``isclose(finger, 0.04, atol=1e-4, rtol=1e-4)``.
    """
    tolerance = contract.GRIPPER_OPEN_TOLERANCE * (1 + contract.GRIPPER_OPEN)
    return (np.abs(np.abs(gripper_pos) - contract.GRIPPER_OPEN) <= tolerance).all(axis=-1)


def grasped(cube_pos: np.ndarray, eef_pos: np.ndarray, gripper_pos: np.ndarray) -> np.ndarray:
    """(N,) whether the cube (N, 3) is at the end effector (N, 3) and the fingers have left their open position."""
    near = np.linalg.norm(cube_pos - eef_pos, axis=-1) < contract.GRASP_DISTANCE
    travel = np.abs(np.abs(gripper_pos) - contract.GRIPPER_OPEN)
    return near & (travel > contract.GRASP_FINGER_TRAVEL).all(axis=-1)


def stacked(upper: np.ndarray, lower: np.ndarray, gripper_pos: np.ndarray) -> np.ndarray:
    """(N,) subtask ``stack_i``: whether `upper` is on `lower` (both (N, 3)) and the gripper is open.

    As in IsaacLab, the height test is one-sided (any smaller difference passes) and ignores which cube is on top.
    """
    near = np.linalg.norm(upper[..., :2] - lower[..., :2], axis=-1) < contract.STACK_SUBTASK_XY_THRESHOLD
    return near & _height_difference_small(upper, lower) & gripper_open(gripper_pos)


def success(cube_positions: np.ndarray, cube_velocities: np.ndarray, gripper_pos: np.ndarray) -> np.ndarray:
    """(N,) whether all cubes are stacked in order, at rest, and released (IsaacLab 3.0.0 ``mdp.cubes_stacked``).

    Args:
        cube_positions: (N, cubes, 3), in the order of the stack from the bottom.
        cube_velocities: (N, cubes, 3) linear, m/s; each must be slower than 0.05.
        gripper_pos: (N, 2).
    """
    return stack_stands(cube_positions, gripper_pos) & at_rest(cube_velocities)


def stack_stands(cube_positions: np.ndarray, gripper_pos: np.ndarray) -> np.ndarray:
    """(N,) whether all cubes are stacked in order and released, be they at rest or not: the term of IsaacLab 2.x, which
    RLinf rewards (``mdp.cubes_stacked`` there). Arguments as of `success`."""
    lower, upper = cube_positions[:, :-1], cube_positions[:, 1:]
    aligned = np.linalg.norm(upper[..., :2] - lower[..., :2], axis=-1) < contract.STACK_XY_THRESHOLD
    in_order = lower[..., 2] < upper[..., 2]
    stack = (aligned & in_order & _height_difference_small(upper, lower)).all(axis=-1)
    return stack & gripper_open(gripper_pos)


def at_rest(cube_velocities: np.ndarray) -> np.ndarray:
    """(N,) whether every cube, (N, cubes, 3), is slower than IsaacLab 3.0.0 wants it."""
    return (np.linalg.norm(cube_velocities, axis=-1) < contract.SUCCESS_MAX_SPEED).all(axis=-1)


def dropped(cube_positions: np.ndarray) -> np.ndarray:
    """(N,) whether any cube, (N, cubes, 3), has fallen below the table top."""
    return np.any(cube_positions[..., 2] < contract.DROP_HEIGHT, axis=-1)


def subtask_terms(
    names: tuple[str, ...], cube_positions: np.ndarray, eef_pos: np.ndarray, gripper_pos: np.ndarray
) -> dict[str, np.ndarray]:
    """Flags (N,) of the named subtasks: ``grasp_i`` is for cube i + 1, ``stack_i`` for cube i + 1 on cube i."""
    flags = {}
    for name in names:
        kind, number = name.split("_")
        upper, lower = cube_positions[:, int(number)], cube_positions[:, int(number) - 1]
        flags[name] = grasped(upper, eef_pos, gripper_pos) if kind == "grasp" else stacked(upper, lower, gripper_pos)
    return flags


def _height_difference_small(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    difference = np.abs(upper[..., 2] - lower[..., 2]) - contract.STACK_HEIGHT_DIFFERENCE
    return difference < contract.STACK_HEIGHT_THRESHOLD
