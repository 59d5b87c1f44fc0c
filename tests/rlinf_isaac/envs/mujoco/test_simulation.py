from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support import arm_contacts

from rlinf_isaac.envs.mujoco.simulation import Simulation

STAY = np.array([0, 0, 0, 0, 0, 0, 1.0])


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(num_envs=2, num_cubes=3)


def run(simulation: Simulation, action: np.ndarray, steps: int) -> tuple[np.ndarray, Rotation]:
    for _ in range(steps):
        simulation.control_step([0], action[None])
    w, x, y, z = simulation.measured.eef_quat[0]
    return simulation.measured.eef_pos[0].copy(), Rotation.from_quat([x, y, z, w])


def test_robot_touches_nothing_at_reset_nor_while_it_stays(simulation: Simulation) -> None:
    for seed in range(20):
        simulation.reset(0, seed)
        assert arm_contacts(simulation, 0) == []
    for _ in range(10):
        simulation.control_step([0], STAY[None])
        assert arm_contacts(simulation, 0) == []


def test_contacts_are_reported(simulation: Simulation) -> None:
    simulation.reset(0, 0)
    run(simulation, np.array([0, 0, -0.2, 0, 0, 0, 1.0]), 40)
    assert any("table" in pair or "world" in pair for pair in arm_contacts(simulation, 0))


def test_a_zero_action_holds_the_pose(simulation: Simulation) -> None:
    simulation.reset(0, 3)
    before = simulation.measured.eef_pos[0].copy()
    after, _ = run(simulation, STAY, 20)
    assert np.linalg.norm(after - before) < 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_translation_follows_the_base_axes(simulation: Simulation, axis: int, sign: int) -> None:
    simulation.reset(0, 3)
    before = simulation.measured.eef_pos[0].copy()
    action = STAY.copy()
    action[axis] = 0.1 * sign
    after, _ = run(simulation, action, 10)
    moved = (after - before) * sign
    others = np.delete(np.abs(moved), axis)
    assert moved[axis] > 0.05
    assert others.max() < 0.2 * moved[axis]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotation_is_about_the_base_axes(simulation: Simulation, axis: int) -> None:
    simulation.reset(0, 3)
    w, x, y, z = simulation.measured.eef_quat[0]
    before = Rotation.from_quat([x, y, z, w])
    action = STAY.copy()
    action[3 + axis] = 0.2
    _, after = run(simulation, action, 10)
    turned = (after * before.inv()).as_rotvec()
    others = np.delete(np.abs(turned), axis)
    assert turned[axis] > 0.1
    assert others.max() < 0.2 * turned[axis]


def test_motion_is_half_of_what_the_action_says_per_settled_step(simulation: Simulation) -> None:
    """One long push: the commanded offset is ACTION_SCALE x action from the measured pose, never more."""
    simulation.reset(0, 3)
    before = simulation.measured.eef_pos[0].copy()
    after, _ = run(simulation, np.array([0, 0, 0.02, 0, 0, 0, 1.0]), 1)
    assert 0 < after[2] - before[2] < 0.5 * 0.02


@pytest.mark.parametrize(("command", "width"), [(-1e-3, 0.0), (0.0, 0.08), (1.0, 0.08)])
def test_gripper_closes_below_zero_and_opens_from_zero_on(simulation: Simulation, command: float, width: float) -> None:
    simulation.reset(0, 3)
    run(simulation, np.array([0, 0, 0.02, 0, 0, 0, -command or -1.0]), 12)  # the other way first
    run(simulation, np.array([0, 0, 0.02, 0, 0, 0, command]), 20)
    finger_1, finger_2 = simulation.measured.gripper_pos[0]
    assert finger_1 - finger_2 == pytest.approx(width, abs=5e-4)
    assert finger_1 >= -1e-4
    assert finger_2 <= 1e-4


def test_measurements_are_those_of_the_state_they_come_with(simulation: Simulation) -> None:
    """Positions of bodies lag one physics step behind qpos unless they are brought up to date."""
    import mujoco

    simulation.reset(0, 3)
    run(simulation, np.array([0.2, 0.1, -0.1, 0, 0, 0.3, 1.0]), 5)
    data = simulation.data[0]
    hand = data.body("panda_hand").xpos.copy()
    mujoco.mj_kinematics(simulation.model, data)
    np.testing.assert_array_equal(hand, data.body("panda_hand").xpos)


def test_eef_quaternion_keeps_its_sign(simulation: Simulation) -> None:
    simulation.reset(0, 3)
    previous = simulation.measured.eef_quat[0].copy()
    for t in range(60):
        simulation.control_step([0], np.array([[0, 0, 0, 0, 0, 0.4 if t < 30 else -0.8, 1.0]]))
        current = simulation.measured.eef_quat[0].copy()
        assert previous @ current > 0.9
        previous = current


def test_object_term_is_poses_then_eef_to_cube_then_pairs(simulation: Simulation) -> None:
    simulation.reset(0, 5)
    policy = simulation.measured.policy(np.zeros((2, 7)))
    values, eef = policy["object"][0], policy["eef_pos"][0]
    cubes = policy["cube_positions"][0].reshape(3, 3)
    quats = policy["cube_orientations"][0].reshape(3, 4)
    np.testing.assert_array_equal(values[:21].reshape(3, 7), np.concatenate([cubes, quats], axis=1))
    np.testing.assert_allclose(values[21:30].reshape(3, 3), cubes - eef, atol=1e-6)
    expected = [cubes[0] - cubes[1], cubes[1] - cubes[2], cubes[0] - cubes[2]]
    np.testing.assert_allclose(values[30:].reshape(3, 3), expected, atol=1e-6)


def test_joint_positions_are_relative_to_the_default(simulation: Simulation) -> None:
    simulation.reset(0, 5)
    joints = simulation.measured.policy(np.zeros((2, 7)))["joint_pos"][0]
    assert 0 < np.abs(joints[:7]).max() < 0.1
    assert joints[7:].tolist() == [0, 0]
