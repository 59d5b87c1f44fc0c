"""Kinematics of the Franka Panda: Franka's published frames and joint limits, and the resulting pose of the hand.

The stand-in robot is built from this table (`assets`), and the simulator's end-effector pose is checked against it
(`simulation`): a pose that does not match the joints is stale. This module needs only numpy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rlinf_isaac.envs.stack_cube import contract

_QUARTER = math.pi / 2


class Joint(NamedTuple):
    """A joint and the link that it moves. Lengths in metres, angles in radians.

    Attributes:
        name: name of the joint.
        parent, child: names of the links.
        xyz, rpy: the child's frame in the parent's frame; fixed-axis roll, pitch, yaw.
        axis: ``Z`` for revolute, ``Y`` for prismatic, empty for fixed.
        limits: lower and upper limit.
        effort: largest torque in N m, or force in N.
    """

    name: str
    parent: str
    child: str
    xyz: tuple[float, float, float]
    rpy: tuple[float, float, float]
    axis: str = ""
    limits: tuple[float, float] = (0.0, 0.0)
    effort: float = 0.0


def _arm(number: int, xyz: tuple[float, float, float], roll: float, low: float, high: float, effort: float) -> Joint:
    links = f"panda_link{number - 1}", f"panda_link{number}"
    return Joint(f"panda_joint{number}", *links, xyz, (roll, 0.0, 0.0), "Z", (low, high), effort)


def _finger(number: int, side: str, yaw: float) -> Joint:
    limits = (0.0, contract.GRIPPER_OPEN)
    name = f"panda_finger_joint{number}"
    return Joint(name, HAND, f"panda_{side}finger", (0.0, 0.0, 0.0584), (0.0, 0.0, yaw), "Y", limits, 20.0)


BASE, HAND = "panda_link0", "panda_hand"
ARM = (
    _arm(1, (0.0, 0.0, 0.333), 0.0, -2.8973, 2.8973, 87.0),
    _arm(2, (0.0, 0.0, 0.0), -_QUARTER, -1.7628, 1.7628, 87.0),
    _arm(3, (0.0, -0.316, 0.0), _QUARTER, -2.8973, 2.8973, 87.0),
    _arm(4, (0.0825, 0.0, 0.0), _QUARTER, -3.0718, -0.0698, 87.0),
    _arm(5, (-0.0825, 0.384, 0.0), -_QUARTER, -2.8973, 2.8973, 12.0),
    _arm(6, (0.0, 0.0, 0.0), _QUARTER, -0.0175, 3.7525, 12.0),
    _arm(7, (0.088, 0.0, 0.0), _QUARTER, -2.8973, 2.8973, 12.0),
)
HAND_JOINT = Joint("panda_hand_joint", "panda_link7", HAND, (0.0, 0.0, 0.107), (0.0, 0.0, -math.pi / 4))
FINGERS = (_finger(1, "left", 0.0), _finger(2, "right", math.pi))
JOINTS = (*ARM, HAND_JOINT, *FINGERS)
JOINT_NAMES = tuple(joint.name for joint in (*ARM, *FINGERS))
ARM_LIMITS = np.array([joint.limits for joint in ARM])


def rpy_quat(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Quaternion wxyz of a rotation about the fixed axes x, y, z in this order."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll / 2, pitch / 2, yaw / 2]), np.sin([roll / 2, pitch / 2, yaw / 2])
    return np.array(
        [
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ]
    )


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The quaternion product a b (..., 4), wxyz."""
    w = a[..., :1] * b[..., :1] - np.sum(a[..., 1:] * b[..., 1:], axis=-1, keepdims=True)
    v = a[..., :1] * b[..., 1:] + b[..., :1] * a[..., 1:] + np.cross(a[..., 1:], b[..., 1:])
    return np.concatenate([w, v], axis=-1)


def rotate(quat: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """`vector` (..., 3) rotated by `quat` (..., 4) wxyz."""
    twice = 2 * np.cross(quat[..., 1:], vector)
    return vector + quat[..., :1] * twice + np.cross(quat[..., 1:], twice)


def eef_pose(arm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position (N, 3) and quaternion wxyz (N, 4) of the end effector in the base's frame, for arm joints (N, 7)."""
    arm = np.asarray(arm, np.float64)
    position, quat = np.zeros((len(arm), 3)), np.tile([1.0, 0.0, 0.0, 0.0], (len(arm), 1))
    for joint, angle in zip((*ARM, HAND_JOINT), [*arm.T, np.zeros(len(arm))], strict=True):
        position = position + rotate(quat, np.broadcast_to(joint.xyz, position.shape))
        turn = np.stack([np.cos(angle / 2), 0 * angle, 0 * angle, np.sin(angle / 2)], axis=-1)
        quat = multiply(multiply(quat, np.broadcast_to(rpy_quat(*joint.rpy), quat.shape)), turn)
    tip = np.broadcast_to((0.0, 0.0, contract.EEF_FRAME_OFFSET), position.shape)
    return position + rotate(quat, tip), quat
