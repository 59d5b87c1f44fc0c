from __future__ import annotations

import numpy as np
import pytest

from rlinf_isaac.envs.stack_cube import terms

OPEN = np.array([[0.04, -0.04]])
HOLDING = np.array([[0.02, -0.02]])
SIZE = 0.0468


def tower(count: int, shift: float = 0.0) -> np.ndarray:
    """A stack (1, count, 3); the top cube is shifted in y."""
    cubes = np.array([[[0.5, 0.0, 0.0203 + i * SIZE] for i in range(count)]])
    cubes[0, -1, 1] += shift
    return cubes


@pytest.mark.parametrize("count", [2, 3])
def test_a_tower_at_rest_is_success(count: int) -> None:
    assert terms.success(tower(count), np.zeros((1, count, 3)), OPEN).tolist() == [True]


@pytest.mark.parametrize(
    "spoil",
    ["held", "one finger", "moving", "shifted", "wrong order", "flat", "too high"],
)
def test_what_is_not_success(spoil: str) -> None:
    cubes, velocities, gripper = tower(3), np.zeros((1, 3, 3)), OPEN.copy()
    if spoil == "held":
        gripper = HOLDING
    elif spoil == "one finger":
        gripper[0, 1] = -0.0398
    elif spoil == "moving":
        velocities[0, 1, 0] = 0.051
    elif spoil == "shifted":
        cubes = tower(3, shift=0.041)
    elif spoil == "wrong order":
        cubes = cubes[:, [1, 0, 2]]
    elif spoil == "flat":
        cubes[..., 2] = 0.0203
    elif spoil == "too high":
        cubes[0, 2, 2] += 0.0051  # 0.0519 above its base; 0.0518 is the limit
    assert terms.success(cubes, velocities, gripper).tolist() == [False]


def test_thresholds_of_success_are_upstreams() -> None:
    assert terms.success(tower(2, shift=0.039), np.full((1, 2, 3), 0.028), OPEN).all()
    assert terms.success(tower(2), np.zeros((1, 2, 3)), OPEN + np.array([[-1e-4, 1e-4]])).all()
    assert not terms.success(tower(2), np.zeros((1, 2, 3)), OPEN + np.array([[-1.1e-4, 0]])).any()


def test_any_cube_below_the_table_is_a_drop() -> None:
    cubes = np.repeat(tower(3), 3, axis=0)
    cubes[1, 2, 2], cubes[2, 0, 2] = -0.051, -0.049
    assert terms.dropped(cubes).tolist() == [False, True, False]


def test_grasp_needs_nearness_and_both_fingers_moved() -> None:
    cube = np.zeros((4, 3))
    eef = np.array([[0, 0, 0.059], [0, 0, 0.061], [0, 0, 0], [0, 0, 0]])
    gripper = np.array([[0.02, -0.02], [0.02, -0.02], [0.04, -0.04], [0.02, -0.036]])
    assert terms.grasped(cube, eef, gripper).tolist() == [True, False, False, False]


def test_subtasks_are_about_the_cubes_their_names_say() -> None:
    cubes = tower(3)
    cubes[0, 2] = [0.3, 0.3, 0.0203]
    at_green = terms.subtask_terms(("grasp_1", "stack_1", "grasp_2"), cubes, cubes[:, 2], HOLDING)
    assert {name: flag[0] for name, flag in at_green.items()} == {"grasp_1": False, "stack_1": False, "grasp_2": True}
    released = terms.subtask_terms(("grasp_1", "stack_1", "grasp_2"), cubes, cubes[:, 1], OPEN)
    assert {name: flag[0] for name, flag in released.items()} == {"grasp_1": False, "stack_1": True, "grasp_2": False}
