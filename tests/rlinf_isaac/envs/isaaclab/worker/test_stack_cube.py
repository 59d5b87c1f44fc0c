"""What is done with IsaacLab's arrays; what is done with IsaacLab is in test_conformance.py."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from rlinf_isaac.envs.isaaclab import kinematics
from rlinf_isaac.envs.isaaclab.worker.stack_cube import to_contract, wxyz
from rlinf_isaac.tasks.paths import axis_angle


def test_quaternions_become_those_of_the_contract():
    turns = Rotation.from_euler("xyz", [[0.1, 0.2, 0.3], [1.0, -1.0, 2.0]])
    np.testing.assert_allclose(axis_angle(wxyz(turns.as_quat(canonical=True))), turns.as_rotvec())


def test_cubes_are_given_in_the_frame_of_their_env_and_the_hand_keeps_its_sign():
    origins = np.array([[0.0, 0, 0], [2.5, -1, 0]])
    xyzw = np.array([0.6, 0.0, 0.0, 0.8])
    home = np.array([0.0, 1.0, 0.0, 0.0])
    poses = np.concatenate([np.tile([*range(3), *xyzw], 3), np.arange(18)])
    isaaclab = {
        "cube_positions": np.arange(9) + np.tile(origins, 3),
        "cube_orientations": np.tile(xyzw, (2, 3)),
        "object": np.tile(poses, (2, 1)),
        "eef_quat": np.array([[1.0, 0, 0, 0.01], [-1.0, 0, 0, 0.01]]),
        "gripper_pos": np.tile([0.04, -0.04], (2, 1)),
    }
    result = to_contract(isaaclab, origins, home)
    np.testing.assert_allclose(result["cube_positions"], np.tile(np.arange(9), (2, 1)))
    np.testing.assert_allclose(result["cube_orientations"], np.tile([0.8, 0.6, 0, 0], (2, 3)))
    np.testing.assert_allclose(result["object"][:, :7], [[0, 1, 2, 0.8, 0.6, 0, 0]] * 2)
    np.testing.assert_allclose(result["object"][:, 21:], [np.arange(18)] * 2)
    assert (result["eef_quat"] @ home > 0).all()
    assert all(array.dtype == np.float32 for array in result.values())
    assert isaaclab["cube_orientations"][0, 0] == 0.6, "the simulator's own buffer was changed"


def test_kinematics_are_those_of_the_embedded_robot():
    from rlinf_isaac.envs.mujoco.simulation import Simulation

    simulation = Simulation(1, 2)
    for seed in range(3):
        simulation.reset(0, seed)
        position, quat = kinematics.eef_pose(simulation.measured.joint_pos[:, :7])
        np.testing.assert_allclose(position, simulation.measured.eef_pos, atol=1e-6)
        np.testing.assert_allclose(quat, simulation.measured.eef_quat, atol=1e-5)
    limits = [simulation.model.joint(f"panda_joint{i}").range for i in range(1, 8)]
    np.testing.assert_allclose(kinematics.ARM_LIMITS, limits)
