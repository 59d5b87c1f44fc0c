"""The contract of Isaac-Stack-Cube-Franka-IK-Rel-Visuomotor: constants and functions for all backends. numpy only.

Numbers are those of IsaacLab 3.0.0 (``isaaclab_tasks/.../stack``: ``stack_env_cfg.py``, ``stack_joint_pos_env_cfg.py``,
``stack_ik_rel_visuomotor_env_cfg.py``, ``mdp/{observations,terminations,franka_stack_events}.py``). Lengths are
metres, angles radians, quaternions wxyz (the order RLinf's IsaacLab wrapper assumes; IsaacLab 3.0.0 itself gives xyzw).

An observation is ``{"policy": {...}, "subtask_terms": {...}}`` with the keys, shapes and dtypes of `observation_spec`.
Cubes are numbered from the bottom: cube_1 blue, cube_2 red, cube_3 green.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rlinf_isaac.tasks.paths import axis_angle

# Timing: each action is one control step, which may consist of several physics steps.
CONTROL_HZ = 20

# Action: (dx, dy, dz, rx, ry, rz, gripper). The first six are scaled, then applied to the pose measured at the start of
# the control step: translation and axis-angle rotation, both in the robot's base frame, about IK_FRAME_OFFSET.
ACTION_NAMES = ("dx", "dy", "dz", "rx", "ry", "rz", "gripper")
ACTION_DIM = len(ACTION_NAMES)
MOTION_DIMS = 6
HOLD = np.zeros(ACTION_DIM, np.float32)  # stays where it is, with open fingers
ACTION_SCALE = 0.5
IK_DAMPING = 0.01
IK_FRAME_OFFSET = 0.107  # along panda_hand's z: where actions act
EEF_FRAME_OFFSET = 0.1034  # along panda_hand's z: where eef_pos is measured

# Robot: panda_joint1..7, then the two fingers.
NUM_ARM_JOINTS = 7
DEFAULT_JOINT_POS = (0.0444, -0.1894, -0.1107, -2.5148, 0.0044, 2.3775, 0.6952, 0.04, 0.04)
GRIPPER_OPEN = 0.04
GRIPPER_CLOSED = 0.0

# Scene and reset randomisation.
CUBE_SIZE = 0.0468
CUBE_HALF_SIZE = 0.0234
TABLE_HEIGHT = -0.0031  # height of the table's top; at a reset the centres of cubes are at CUBE_RESET_HEIGHT
CUBE_RESET_HEIGHT = 0.0203
CUBE_COLOURS = ("blue", "red", "green")
RESET_JOINT_STD = 0.02
RESET_CUBE_X = (0.4, 0.6)
RESET_CUBE_Y = (-0.1, 0.1)
RESET_CUBE_YAW = (-1.0, 1.0)
RESET_MIN_SEPARATION = 0.1
RESET_MAX_TRIES = 5000

# Terms.
STACK_XY_THRESHOLD = 0.04
STACK_SUBTASK_XY_THRESHOLD = 0.05
STACK_HEIGHT_DIFFERENCE = 0.0468
STACK_HEIGHT_THRESHOLD = 0.005
SUCCESS_MAX_SPEED = 0.05
DROP_HEIGHT = -0.05
GRASP_DISTANCE = 0.06
GRASP_FINGER_TRAVEL = 0.005
GRIPPER_OPEN_TOLERANCE = 1e-4

# Cameras: both 47.2 degrees wide (focal length 24, aperture 20.955), square, uint8 RGB.
TABLE_CAM = "table_cam"
WRIST_CAM = "wrist_cam"
CAMERA_NAMES = (TABLE_CAM, WRIST_CAM)
CAMERA_FOCAL_LENGTH = 24.0
CAMERA_APERTURE = 20.955
DEFAULT_IMAGE_SIZE = 200

STATE_LAYOUTS = ("proprio", "proprio+cubes")


@dataclass(frozen=True)
class TaskSpec:
    """A stacking task.

    Attributes:
        name: key in `TASKS`.
        num_cubes: number of cubes on the table. The episode succeeds when all are stacked in order.
        prompt: the language instruction.
        subtasks: keys of ``obs["subtask_terms"]``.
    """

    name: str
    num_cubes: int
    prompt: str
    subtasks: tuple[str, ...]


TASKS: dict[str, TaskSpec] = {
    task.name: task
    for task in (
        TaskSpec("stack2", 2, "Stack the red block on the blue block.", ("grasp_1", "stack_1")),
        TaskSpec(
            "stack3",
            3,
            # RLinf's instruction for Isaac-Stack-Cube-Franka-IK-Rel-Visuomotor-Rewarded-v0.
            "Stack the red block on the blue block, then stack the green block on the red block.",
            ("grasp_1", "stack_1", "grasp_2"),
        ),
    )
}


class ArraySpec(NamedTuple):
    """Shape (without the leading number of environments) and dtype of one observation array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def observation_spec(task: TaskSpec, image_size: int) -> dict[str, dict[str, ArraySpec]]:
    """Keys in order, shapes and dtypes of an observation of `task` with square images of `image_size` pixels.

    ``joint_pos`` is relative to `DEFAULT_JOINT_POS`. ``object`` has the position and quaternion of each cube, then the
    vectors from end effector to cubes, then lower minus upper cube for each pair (12, 23, 13). ``gripper_pos`` is
    (+finger 1, -finger 2).
    """
    n = task.num_cubes
    float32, uint8, flag = np.dtype(np.float32), np.dtype(np.uint8), np.dtype(np.bool_)
    policy = {
        "actions": ArraySpec((ACTION_DIM,), float32),
        "joint_pos": ArraySpec((NUM_ARM_JOINTS + 2,), float32),
        "joint_vel": ArraySpec((NUM_ARM_JOINTS + 2,), float32),
        "object": ArraySpec((7 * n + 3 * n + 3 * (n * (n - 1) // 2),), float32),
        "cube_positions": ArraySpec((3 * n,), float32),
        "cube_orientations": ArraySpec((4 * n,), float32),
        "eef_pos": ArraySpec((3,), float32),
        "eef_quat": ArraySpec((4,), float32),
        "gripper_pos": ArraySpec((2,), float32),
        TABLE_CAM: ArraySpec((image_size, image_size, 3), uint8),
        WRIST_CAM: ArraySpec((image_size, image_size, 3), uint8),
    }
    return {"policy": policy, "subtask_terms": {name: ArraySpec((), flag) for name in task.subtasks}}


def policy_state(policy_obs: Mapping[str, np.ndarray], layout: str) -> np.ndarray:
    """The proprioceptive state (N, D) float32 that a policy reads.

    Layouts:
        ``proprio`` (8): eef_pos 3, eef axis-angle 3, gripper_pos 2; as in RLinf's IsaacLab wrapper.
        ``proprio+cubes`` (8 + 6 n + 3 (n - 1); 32 for three cubes): the same, then per cube: cube - eef 3, cos and sin
        of four times its yaw relative to the fingers (a cube looks the same every 90 degrees), height 1; then upper
        minus lower for consecutive cubes. This is privileged information that only a simulator has.

    Args:
        policy_obs: ``obs["policy"]``; images are not used.
        layout: one of `STATE_LAYOUTS`.

    Raises:
        ValueError: unknown layout.
    """
    _check_layout(layout)
    eef_pos = np.asarray(policy_obs["eef_pos"], np.float64)
    parts = [eef_pos, axis_angle(policy_obs["eef_quat"]), np.asarray(policy_obs["gripper_pos"], np.float64)]
    if layout == "proprio+cubes":
        count = len(eef_pos)
        positions = np.asarray(policy_obs["cube_positions"], np.float64).reshape(count, -1, 3)
        yaws = quat_yaw(np.asarray(policy_obs["cube_orientations"], np.float64).reshape(count, -1, 4))
        yaws -= finger_yaw(policy_obs["eef_quat"])[:, None]
        per_cube = np.concatenate(
            [
                positions - eef_pos[:, None],
                np.cos(4 * yaws)[..., None],
                np.sin(4 * yaws)[..., None],
                positions[..., 2:],
            ],
            axis=-1,
        )
        parts += [per_cube.reshape(count, -1), np.diff(positions, axis=1).reshape(count, -1)]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def state_names(layout: str, num_cubes: int) -> list[str]:
    """A name for every dimension of `policy_state`, in order."""
    _check_layout(layout)
    names = ["eef_x", "eef_y", "eef_z", "eef_rx", "eef_ry", "eef_rz", "finger_1", "finger_2"]
    if layout == "proprio+cubes":
        for i in range(1, num_cubes + 1):
            names += [f"cube_{i}_minus_eef_{axis}" for axis in "xyz"]
            names += [f"cube_{i}_cos_4yaw_from_fingers", f"cube_{i}_sin_4yaw_from_fingers", f"cube_{i}_z"]
        for i in range(1, num_cubes):
            names += [f"cube_{i + 1}_minus_cube_{i}_{axis}" for axis in "xyz"]
    return names


def quat_yaw(quat: np.ndarray) -> np.ndarray:
    """Rotation about the world's z axis (...,) of quaternions wxyz (..., 4), radians in (-pi, pi]."""
    w, x, y, z = np.moveaxis(np.asarray(quat), -1, 0)
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def finger_yaw(eef_quat: np.ndarray) -> np.ndarray:
    """Direction (...,) in which the fingers open: the hand's y axis seen from above, for eef_quat wxyz (..., 4)."""
    w, x, y, z = np.moveaxis(np.asarray(eef_quat, np.float64), -1, 0)
    return np.arctan2(1 - 2 * (x * x + z * z), 2 * (x * y - w * z))


def _check_layout(layout: str) -> None:
    if layout not in STATE_LAYOUTS:
        raise ValueError(f"unknown state layout {layout!r}; choose one of {', '.join(STATE_LAYOUTS)}")
