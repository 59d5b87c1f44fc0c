from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from rlinf_isaac.envs.stack_cube.contract import (
    CUBE_COLOURS,
    TASKS,
    finger_yaw,
    observation_spec,
    policy_state,
    quat_yaw,
    state_names,
)

angles = st.floats(-3.1, 3.1)


def observation(num_cubes: int, count: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, num_cubes + 1, 4))
    quats /= np.linalg.norm(quats, axis=-1, keepdims=True)
    return {
        "eef_pos": rng.normal(size=(count, 3)).astype(np.float32),
        "eef_quat": quats[:, 0].astype(np.float32),
        "gripper_pos": np.tile(np.float32([0.04, -0.04]), (count, 1)),
        "cube_positions": rng.normal(size=(count, 3 * num_cubes)).astype(np.float32),
        "cube_orientations": quats[:, 1:].reshape(count, -1).astype(np.float32),
    }


@pytest.mark.parametrize(
    ("layout", "cubes", "dim"), [("proprio", 3, 8), ("proprio+cubes", 2, 23), ("proprio+cubes", 3, 32)]
)
def test_state_has_a_name_for_every_dimension(layout: str, cubes: int, dim: int) -> None:
    names = state_names(layout, cubes)
    assert policy_state(observation(cubes), layout).shape == (2, dim)
    assert len(names) == len(set(names)) == dim


def test_state_entries_are_what_their_names_say() -> None:
    obs = observation(2)
    state = dict(zip(state_names("proprio+cubes", 2), policy_state(obs, "proprio+cubes")[1], strict=True))
    cube = obs["cube_positions"][1].reshape(2, 3)
    assert state["eef_y"] == obs["eef_pos"][1, 1]
    assert state["finger_2"] == np.float32(-0.04)
    assert state["cube_2_minus_eef_x"] == pytest.approx(cube[1, 0] - obs["eef_pos"][1, 0])
    assert state["cube_2_z"] == cube[1, 2]
    assert state["cube_2_minus_cube_1_y"] == pytest.approx(cube[1, 1] - cube[0, 1])
    yaw = quat_yaw(obs["cube_orientations"][1, :4]) - finger_yaw(obs["eef_quat"][1])
    assert state["cube_1_cos_4yaw_from_fingers"] == pytest.approx(np.cos(4 * yaw), abs=1e-5)
    assert state["cube_1_sin_4yaw_from_fingers"] == pytest.approx(np.sin(4 * yaw), abs=1e-5)


@given(angles)
@settings(deadline=None)
def test_state_does_not_see_quarter_turns_of_a_cube(yaw: float) -> None:
    states = []
    for turn in range(4):
        obs = observation(1)
        half = (yaw + turn * np.pi / 2) / 2
        obs["cube_orientations"] = np.tile([np.cos(half), 0, 0, np.sin(half)], (2, 1))
        states.append(policy_state(obs, "proprio+cubes"))
    np.testing.assert_allclose(states[1:], np.broadcast_to(states[0], (3, *states[0].shape)), atol=1e-5)


@given(angles)
@settings(deadline=None)
def test_yaw_of_a_turned_cube(yaw: float) -> None:
    assert quat_yaw([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]) == pytest.approx(yaw)


@given(st.tuples(angles, angles, angles))
@settings(deadline=None)
def test_fingers_open_along_the_hands_y_axis(euler: tuple[float, float, float]) -> None:
    rotation = Rotation.from_euler("xyz", euler)
    x, y, z, w = rotation.as_quat()
    along = rotation.apply([0, 1, 0])[:2]
    if np.linalg.norm(along) > 1e-3:
        yaw = finger_yaw(np.array([w, x, y, z]))
        np.testing.assert_allclose([np.cos(yaw), np.sin(yaw)], along / np.linalg.norm(along), atol=1e-6)


def test_unknown_layout_is_named() -> None:
    with pytest.raises(ValueError, match="cartesian"):
        policy_state(observation(2), "cartesian")
    with pytest.raises(ValueError, match="cartesian"):
        state_names("cartesian", 2)


def test_three_cube_observation_is_upstreams() -> None:
    spec = observation_spec(TASKS["stack3"], 200)
    shapes = {key: value.shape for key, value in spec["policy"].items()}
    assert shapes == {
        "actions": (7,),
        "joint_pos": (9,),
        "joint_vel": (9,),
        "object": (39,),
        "cube_positions": (9,),
        "cube_orientations": (12,),
        "eef_pos": (3,),
        "eef_quat": (4,),
        "gripper_pos": (2,),
        "table_cam": (200, 200, 3),
        "wrist_cam": (200, 200, 3),
    }
    assert list(spec["subtask_terms"]) == ["grasp_1", "stack_1", "grasp_2"]


def test_prompts_name_the_colours_of_their_cubes() -> None:
    for task in TASKS.values():
        named = {colour for colour in CUBE_COLOURS if colour in task.prompt}
        assert named == set(CUBE_COLOURS[: task.num_cubes])


def test_contract_imports_neither_simulator_nor_torch() -> None:
    code = (
        "import sys, rlinf_isaac.envs.stack_cube.contract; "
        "print([m for m in ('mujoco', 'torch', 'gymnasium', 'mlflow') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
