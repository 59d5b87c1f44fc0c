"""Measured states of N simulations, and the low-dimensional observations computed from them."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from rlinf_isaac.envs.mujoco import robot, scene
from rlinf_isaac.envs.stack_cube import contract


class Measurements:
    """Object and robot states of N environments, one row each, in float64.

    Attributes:
        joint_pos, joint_vel: (N, 9), not relative to the default pose.
        cube_pos, cube_vel: (N, cubes, 3); velocities are linear.
        cube_quat: (N, cubes, 4) wxyz.
        eef_pos: (N, 3).
        eef_quat: (N, 4) wxyz. Of the two signs, the one nearer to the default pose's quaternion is used, so that the
            quaternion changes continuously as long as the hand stays within half a turn of that pose.
        gripper_pos: (N, 2), (+finger 1, -finger 2).
    """

    def __init__(self, model: mujoco.MjModel, data: Sequence[mujoco.MjData], num_cubes: int) -> None:
        """
        Args:
            model: the compiled scene.
            data: one state per row. The arrays of a state stay where they are in memory, so views of them are kept.
            num_cubes: number of cubes in the scene.
        """
        joints = robot.ARM_JOINTS + robot.FINGER_JOINTS
        self._qpos = np.array([model.joint(name).qposadr[0] for name in joints])
        self._dofs = np.array([model.joint(name).dofadr[0] for name in joints])
        cubes = [model.joint(scene.cube_name(i)) for i in range(1, num_cubes + 1)]
        self._cube_qpos = np.array([cube.qposadr[0] for cube in cubes])[:, None] + np.arange(7)
        self._cube_dofs = np.array([cube.dofadr[0] for cube in cubes])[:, None] + np.arange(3)
        hand = model.body(robot.HAND_BODY).id
        self._home_quat = _default_hand_quat(model, self._qpos, hand)
        num_envs = len(data)
        # Of every row: generalised positions and velocities, and the hand's position, z axis and quaternion.
        self._views = [
            (each.qpos, each.qvel, each.xpos[hand], each.xmat[hand][2::3], each.xquat[hand]) for each in data
        ]
        self._gathered = [np.zeros((num_envs, size)) for size in (model.nq, model.nv, 3, 3, 4)]
        self.joint_pos = np.zeros((num_envs, len(joints)))
        self.joint_vel = np.zeros((num_envs, len(joints)))
        self.cube_pos = np.zeros((num_envs, num_cubes, 3))
        self.cube_vel = np.zeros((num_envs, num_cubes, 3))
        self.cube_quat = np.zeros((num_envs, num_cubes, 4))
        self.eef_pos = np.zeros((num_envs, 3))
        self.eef_quat = np.zeros((num_envs, 4))
        self.gripper_pos = np.zeros((num_envs, 2))

    def read(self, rows: Sequence[int]) -> None:
        """Measure these simulations. Needs up-to-date kinematics in their data."""
        qpos, qvel, hand, hand_z, quat = (array[: len(rows)] for array in self._gathered)
        for i, row in enumerate(rows):
            qpos[i], qvel[i], hand[i], hand_z[i], quat[i] = self._views[row]
        self.joint_pos[rows] = joint_pos = qpos[:, self._qpos]
        self.joint_vel[rows] = qvel[:, self._dofs]
        cubes = qpos[:, self._cube_qpos]
        self.cube_pos[rows], self.cube_quat[rows] = cubes[..., :3], cubes[..., 3:]
        self.cube_vel[rows] = qvel[:, self._cube_dofs]
        self.eef_pos[rows] = hand + contract.EEF_FRAME_OFFSET * hand_z
        self.eef_quat[rows] = np.where((quat @ self._home_quat >= 0)[:, None], quat, -quat)
        self.gripper_pos[rows] = joint_pos[:, -2:] * (1, -1)

    def policy(self, last_action: np.ndarray) -> dict[str, np.ndarray]:
        """``obs["policy"]`` of the contract without the cameras; new float32 arrays."""
        count, cubes = self.cube_pos.shape[:2]
        pairs = [(i, i + 1) for i in range(cubes - 1)]
        pairs += [(i, j) for i in range(cubes) for j in range(i + 2, cubes)]
        poses = np.concatenate([self.cube_pos, self.cube_quat], axis=-1).reshape(count, -1)
        from_eef = (self.cube_pos - self.eef_pos[:, None]).reshape(count, -1)
        between = [self.cube_pos[:, i] - self.cube_pos[:, j] for i, j in pairs]
        values = {
            "actions": last_action,
            "joint_pos": self.joint_pos - contract.DEFAULT_JOINT_POS,
            "joint_vel": self.joint_vel,
            "object": np.concatenate([poses, from_eef, *between], axis=-1),
            "cube_positions": self.cube_pos.reshape(count, -1),
            "cube_orientations": self.cube_quat.reshape(count, -1),
            "eef_pos": self.eef_pos,
            "eef_quat": self.eef_quat,
            "gripper_pos": self.gripper_pos,
        }
        return {key: np.array(value, np.float32) for key, value in values.items()}


def _default_hand_quat(model: mujoco.MjModel, qpos: np.ndarray, hand: int) -> np.ndarray:
    data = mujoco.MjData(model)
    data.qpos[qpos] = contract.DEFAULT_JOINT_POS
    mujoco.mj_kinematics(model, data)
    return data.xquat[hand].copy()
