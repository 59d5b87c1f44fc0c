"""IsaacLab's stack-cube task in the form of the contract, on Newton without Kit. Runs in IsaacLab's interpreter.

Scene, managers, observation, action and termination terms, IK, physics and renderer are IsaacLab's, and episodes are
those of `lab`. What differs is how one starts: `sample_reset` draws the start from the episode's seed, with the
distribution of IsaacLab's reset events, so that it is the same in every simulator.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rlinf_isaac.envs.isaaclab import kinematics
from rlinf_isaac.envs.isaaclab.hosted import FILM, HOSTED, VIDEO_SIZE
from rlinf_isaac.envs.isaaclab.options import CameraOptions, LabOptions
from rlinf_isaac.envs.isaaclab.worker.config import LabConfig, lab_config
from rlinf_isaac.envs.isaaclab.worker.lab import Lab
from rlinf_isaac.envs.stack_cube import contract, terms
from rlinf_isaac.envs.stack_cube.randomisation import sample_reset
from rlinf_isaac.tasks.success_rules import RULES, TOUCHED_AT_END, TOUCHED_ONCE

CUBES = ("cube_1", "cube_2", "cube_3")
SUBTASK = "subtask/"
# Largest difference between the end effector's frame and the pose from its joints: in metres, and of a unit quaternion.
EEF_TOLERANCE = 1e-3


class StaleObservation(RuntimeError):
    """The simulator's observation does not show its current state."""


class StackCube(Lab):
    """N rows of the task at the same origin."""

    def __init__(self, config: LabConfig) -> None:
        """
        Args:
            config: of `stack_cube_config`.
        """
        self._home_quat = kinematics.eef_pose(np.array([contract.DEFAULT_JOINT_POS[: contract.NUM_ARM_JOINTS]]))[1][0]
        self._reached = {
            name: np.zeros(config.cfg.scene.num_envs, np.int64) for name in contract.TASKS["stack3"].subtasks
        }
        self._rules = {name: np.zeros(config.cfg.scene.num_envs, bool) for name in RULES}
        super().__init__(config, success="success")

    def metrics(self) -> dict[str, np.ndarray]:
        """``subtask/NAME`` -> (N,), in how many steps of the episode a subtask was reached; and `RULES`."""
        counts = {f"{SUBTASK}{name}": count.copy() for name, count in self._reached.items()}
        return counts | {name: held.astype(np.int64) for name, held in self._rules.items()}

    def step(self, actions: np.ndarray) -> Any:
        observation, reward, terminated, truncated, info = super().step(actions)
        for name, count in self._reached.items():
            count += observation["subtask_terms"][name]
        positions = observation["policy"]["cube_positions"].reshape(-1, len(CUBES), 3)
        stands = terms.stack_stands(positions, observation["policy"]["gripper_pos"])
        self._rules[TOUCHED_AT_END][:] = stands
        self._rules[TOUCHED_ONCE] |= stands
        return observation, reward, terminated, truncated, info | self.metrics()

    def films(self) -> dict[str, np.ndarray]:
        """Path -> (N, VIDEO_SIZE, VIDEO_SIZE, 3) uint8, what the cameras see for a video."""
        return {f"{FILM}/{camera}": self.image(f"{FILM}_{camera}") for camera in contract.CAMERA_NAMES}

    def check_fresh(self, policy: Mapping[str, np.ndarray]) -> None:
        """Raise `StaleObservation` if the end effector's pose does not match the joints."""
        arm = policy["joint_pos"][:, : contract.NUM_ARM_JOINTS] + np.array(contract.DEFAULT_JOINT_POS[:-2], np.float32)
        position, quat = kinematics.eef_pose(arm)
        off = np.abs(policy["eef_pos"] - position).max(axis=-1)
        turned = 1 - np.abs(np.sum(policy["eef_quat"] * quat, axis=-1))
        stale = np.flatnonzero(~((off < EEF_TOLERANCE) & (turned < EEF_TOLERANCE)))
        if stale.size:
            row = int(stale[0])
            raise StaleObservation(
                f"the end effector of env {row} is at {policy['eef_pos'][row].tolist()}, "
                f"its joints put it at {position[row].round(4).tolist()}"
            )

    def _check(self) -> None:
        from isaaclab_newton.physics import NewtonManager

        names = tuple(self.env.scene["robot"].joint_names)
        if names != kinematics.JOINT_NAMES:
            raise RuntimeError(f"the robot's joints are {names}")
        if not NewtonManager.get_model().constraint_mimic_count:
            raise RuntimeError("the second finger does not follow the first: the robot's NewtonMimicAPI was not read")

    def _start(self, rows: Sequence[int]) -> None:
        ids, robot = self._ids(rows), self.env.scene["robot"]
        self.env.reset_rows(ids)
        starts = [sample_reset(self._seeds[row], len(CUBES), kinematics.ARM_LIMITS) for row in rows]
        joints = self._tensor(np.stack([start.joint_pos for start in starts]))
        robot.write_joint_position_to_sim_index(position=joints, env_ids=ids)
        robot.write_joint_velocity_to_sim_index(velocity=torch.zeros_like(joints), env_ids=ids)
        robot.set_joint_position_target_index(target=joints, env_ids=ids)
        robot.set_joint_velocity_target_index(target=torch.zeros_like(joints), env_ids=ids)
        origins = self.env.scene.env_origins[ids.long()]
        for number, name in enumerate(CUBES):
            pose = np.zeros((len(rows), 7), np.float32)
            pose[:, :2] = [start.cube_xy[number] for start in starts]
            pose[:, 2] = contract.CUBE_RESET_HEIGHT
            half_yaw = np.array([start.cube_yaw[number] for start in starts]) / 2
            pose[:, 5], pose[:, 6] = np.sin(half_yaw), np.cos(half_yaw)  # xyzw
            poses = self._tensor(pose)
            poses[:, :3] += origins
            cube = self.env.scene[name]
            cube.write_root_pose_to_sim_index(root_pose=poses, env_ids=ids)
            cube.write_root_velocity_to_sim_index(root_velocity=poses.new_zeros(len(rows), 6), env_ids=ids)
        for count in (*self._reached.values(), *self._rules.values()):
            count[list(rows)] = 0

    def _observation(self) -> dict[str, Any]:
        """In the form of the contract, without images.

        Raises:
            StaleObservation: see `check_fresh`.
        """
        found = super()._observation()
        found["policy"] = to_contract(found["policy"], self.env.scene.env_origins.cpu().numpy(), self._home_quat)
        self.check_fresh(found["policy"])
        return {group: found[group] for group in ("policy", "subtask_terms")}

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(values, np.float32), device=self.env.device)


def stack_cube_config(num_envs: int, image_size: int, max_episode_steps: int, device: str, hand: str) -> LabConfig:
    """The task's own config, with cameras for videos and without what `StackCube` does itself.

    Args:
        num_envs: number of rows.
        image_size: width and height of both cameras' images in pixels.
        max_episode_steps: control steps until time-out.
        device: torch device.
        hand: the hand's path in the robot's file (`assets.hand_path`).
    """
    prims = {contract.TABLE_CAM: None, contract.WRIST_CAM: f"Robot/{hand}/{contract.WRIST_CAM}"}
    cameras = {name: CameraOptions(prim, width=image_size, height=image_size) for name, prim in prims.items()}
    config = lab_config(HOSTED.make, LabOptions(cameras=cameras), num_envs, device, None, {})
    cfg = config.cfg
    cfg.events = {}  # `StackCube` replaces the task's reset events
    cfg.episode_length_s = (max_episode_steps - 0.5) * cfg.decimation * cfg.sim.dt  # rounded up to whole steps
    for name in contract.CAMERA_NAMES:
        film = copy.deepcopy(getattr(cfg.scene, name))
        film.prim_path = film.prim_path.removesuffix(name) + f"{FILM}_{name}"
        film.width = film.height = VIDEO_SIZE
        setattr(cfg.scene, f"{FILM}_{name}", film)
    return config


def to_contract(policy: Mapping[str, np.ndarray], origins: np.ndarray, home_quat: np.ndarray) -> dict[str, np.ndarray]:
    """Converts IsaacLab 3.0's ``obs["policy"]`` to the contract: quaternions wxyz, cubes in the env's frame.

    Of the two signs of the end effector's quaternion, the one nearer to `home_quat` is used, as in the embedded
    environment.
    """
    result = {key: np.array(value, np.float32) for key, value in policy.items()}
    count = len(origins)
    result["cube_positions"] -= np.tile(origins, 3)
    result["cube_orientations"] = wxyz(result["cube_orientations"].reshape(count, -1, 4)).reshape(count, -1)
    for cube in range(len(CUBES)):
        quat = slice(7 * cube + 3, 7 * cube + 7)
        result["object"][:, quat] = wxyz(result["object"][:, quat])
    eef = wxyz(result["eef_quat"])
    result["eef_quat"] = np.where((eef @ home_quat)[:, None] < 0, -eef, eef).astype(np.float32)
    return result


def wxyz(xyzw: np.ndarray) -> np.ndarray:
    """Converts quaternions (..., 4) from IsaacLab 3.x's order xyzw to the contract's order wxyz (that of 2.x)."""
    return np.roll(xyzw, 1, axis=-1)
