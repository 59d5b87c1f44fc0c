"""Relative differential inverse kinematics: converts the 7-D action of the contract to joint targets.

It uses damped least squares, like IsaacLab's ``DifferentialIKController`` with ``ik_method="dls"``:
``q_target = q + J^T (J J^T + lambda^2 I)^-1 e``.
"""

from __future__ import annotations

import mujoco
import numpy as np

from rlinf_isaac.envs.mujoco import robot
from rlinf_isaac.envs.stack_cube import contract


class RelativeIkController:
    """Computes joint targets for one model. Only scratch buffers are kept between control steps."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._site = model.site(robot.IK_SITE).id
        self._dofs = np.array([model.joint(name).dofadr[0] for name in robot.ARM_JOINTS])
        self._qpos = np.array([model.joint(name).qposadr[0] for name in robot.ARM_JOINTS])
        self._jacobian = np.zeros((6, model.nv))
        self._error = np.zeros(6)
        self._damping = contract.IK_DAMPING**2 * np.eye(6)

    def target_pose(self, data: mujoco.MjData, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Target position (3,) and quaternion wxyz (4,) of `action` (7,), relative to the current pose in `data`."""
        translation = contract.ACTION_SCALE * action[:3]
        rotation_vector = contract.ACTION_SCALE * action[3:6]
        quat = self._measured_quat(data)
        angle = float(np.linalg.norm(rotation_vector))
        if angle > 1e-9:
            rotation, rotated = np.empty(4), np.empty(4)
            mujoco.mju_axisAngle2Quat(rotation, rotation_vector / angle, angle)
            mujoco.mju_mulQuat(rotated, rotation, quat)
            quat = rotated
        return data.site_xpos[self._site] + translation, quat

    def joint_targets(self, data: mujoco.MjData, position: np.ndarray, quat: np.ndarray) -> np.ndarray:
        """Joint positions (7,) after one damped step towards the pose. Needs up-to-date kinematics in `data`."""
        mujoco.mj_jacSite(self._model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        inverse, difference = np.empty(4), np.empty(4)
        mujoco.mju_negQuat(inverse, self._measured_quat(data))
        mujoco.mju_mulQuat(difference, quat, inverse)
        self._error[:3] = position - data.site_xpos[self._site]
        mujoco.mju_quat2Vel(self._error[3:], difference, 1.0)
        jacobian = self._jacobian[:, self._dofs]
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + self._damping, self._error)
        return data.qpos[self._qpos] + step

    def _measured_quat(self, data: mujoco.MjData) -> np.ndarray:
        quat = np.empty(4)
        mujoco.mju_mat2Quat(quat, data.site_xmat[self._site])
        return quat


def gripper_target(action: np.ndarray) -> float:
    """Target position of the fingers: a negative gripper action closes them, zero or a positive one opens them."""
    return contract.GRIPPER_CLOSED if action[6] < 0 else contract.GRIPPER_OPEN
