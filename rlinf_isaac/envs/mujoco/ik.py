"""Relative differential inverse kinematics: converts the 7-D action of the contract to joint targets.

It uses damped least squares, like IsaacLab's ``DifferentialIKController`` with ``ik_method="dls"``:
``q_target = q + J^T (J J^T + lambda^2 I)^-1 e``.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from rlinf_isaac.envs.mujoco import robot
from rlinf_isaac.envs.stack_cube import contract


class RelativeIkController:
    """Computes joint targets for several states of one model. Only scratch buffers are kept between control steps.

    The linear algebra is done for all rows at once, matrix by matrix: a row's result has the same bits in any company.
    """

    def __init__(self, model: mujoco.MjModel, data: Sequence[mujoco.MjData]) -> None:
        """
        Args:
            model: the compiled scene.
            data: one state per row. The arrays of a state stay where they are in memory, so views of them are kept.
        """
        self._model, self._data = model, data
        self._site = model.site(robot.IK_SITE).id
        self._dofs = np.array([model.joint(name).dofadr[0] for name in robot.ARM_JOINTS])
        arm = np.array([model.joint(name).qposadr[0] for name in robot.ARM_JOINTS])
        first = int(arm[0])
        assert (arm == first + np.arange(len(arm))).all(), "a view of the arm's joints needs them side by side"
        self._arm = [each.qpos[first : first + len(arm)] for each in data]
        self._position = [each.site_xpos[self._site] for each in data]
        self._rotation = [each.site_xmat[self._site] for each in data]
        self._jacobian = np.zeros((len(data), 6, model.nv))
        self._error = np.zeros((len(data), 6))
        self._joints = np.zeros((len(data), len(arm)))
        self._quats = [np.zeros(4) for _ in range(3)]
        self._damping = contract.IK_DAMPING**2 * np.eye(6)

    def target_poses(self, rows: Sequence[int], actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Target positions (R, 3) and quaternions wxyz (R, 4) of `actions` (R, 7), relative to the current poses."""
        translations, rotations = contract.ACTION_SCALE * actions[:, :3], contract.ACTION_SCALE * actions[:, 3:6]
        positions, quats = np.empty((len(rows), 3)), np.empty((len(rows), 4))
        rotation, quat = np.empty(4), np.empty(4)
        for i, row in enumerate(rows):
            positions[i] = self._position[row] + translations[i]
            angle = float(np.linalg.norm(rotations[i]))
            if angle > 1e-9:
                mujoco.mju_mat2Quat(quat, self._rotation[row])
                mujoco.mju_axisAngle2Quat(rotation, rotations[i] / angle, angle)
                mujoco.mju_mulQuat(quats[i], rotation, quat)
            else:
                mujoco.mju_mat2Quat(quats[i], self._rotation[row])
        return positions, quats

    def joint_targets(self, rows: Sequence[int], positions: np.ndarray, quats: np.ndarray) -> np.ndarray:
        """Joint positions (R, 7) after one damped step towards the poses. Needs up-to-date kinematics in the data."""
        count = len(rows)
        jacobians, errors = self._jacobian[:count], self._error[:count]
        joints, (measured, inverse, difference) = self._joints[:count], self._quats
        for i, row in enumerate(rows):
            mujoco.mj_jacSite(self._model, self._data[row], jacobians[i, :3], jacobians[i, 3:], self._site)
            mujoco.mju_mat2Quat(measured, self._rotation[row])
            mujoco.mju_negQuat(inverse, measured)
            mujoco.mju_mulQuat(difference, quats[i], inverse)
            mujoco.mju_quat2Vel(errors[i, 3:], difference, 1.0)
            errors[i, :3] = positions[i] - self._position[row]
            joints[i] = self._arm[row]
        jacobians = jacobians[:, :, self._dofs]
        transposed = jacobians.transpose(0, 2, 1)
        steps = transposed @ np.linalg.solve(jacobians @ transposed + self._damping, errors[:, :, None])
        return joints + steps[:, :, 0]


def gripper_targets(actions: np.ndarray) -> np.ndarray:
    """Target positions (R,) of the fingers: a negative gripper action closes them, any other opens them."""
    return np.where(actions[:, 6] < 0, contract.GRIPPER_CLOSED, contract.GRIPPER_OPEN)
