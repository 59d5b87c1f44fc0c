"""IsaacLab's stack-cube task on Newton without Kit, with resets by seed. Runs in IsaacLab's interpreter.

Scene, managers, observation, action and termination terms, IK, physics and renderer are IsaacLab's. Only the end and
the start of episodes differ. IsaacLab resets an env within the step that ends its episode, from random generators that
all envs share. Here the step leaves the env in its final state, and `reset` draws the start from the episode's own seed
(`stack_cube.randomisation`, with the distribution of IsaacLab's reset events).

How episodes begin and end is that of `episodes`; `check_fresh` refuses an observation whose end effector is still that
of the episode before.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from rlinf_isaac.envs.isaaclab import kinematics
from rlinf_isaac.envs.isaaclab.protocol import VIDEO_SIZE, SharedArrays
from rlinf_isaac.envs.isaaclab.versions import TASK_ID
from rlinf_isaac.envs.isaaclab.worker.episodes import episodic, record_physics, refresh
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.envs.stack_cube.randomisation import sample_reset

CUBES = ("cube_1", "cube_2", "cube_3")
VIDEO_PREFIX = "video_"
PHYSICS = "newton_mjwarp"
# Largest difference between the end effector's frame and the pose from its joints: in metres, and of a unit quaternion.
EEF_TOLERANCE = 1e-3


class StaleObservation(RuntimeError):
    """The simulator's observation does not show its current state."""


class NewtonSimulation:
    """N envs of the task at the same origin. `write` copies their state into shared memory."""

    def __init__(self, num_envs: int, image_size: int, max_episode_steps: int, device: str, hand: str) -> None:
        """`hand` is the hand's path in the robot's file (`assets.hand_path`); for the rest see `IsaacLabVectorEnv`."""
        from isaaclab.app import launch_simulation
        from isaaclab.envs import ManagerBasedRLEnv
        from isaaclab_newton.physics import NewtonManager

        cfg = task_config(num_envs, image_size, max_episode_steps, device, hand)
        self._open = ExitStack()
        self._open.enter_context(launch_simulation(cfg, {"device": device}))
        self.env = episodic(ManagerBasedRLEnv)(cfg=cfg)
        self._robot = self.env.scene["robot"]
        if tuple(self._robot.joint_names) != kinematics.JOINT_NAMES:
            raise RuntimeError(f"the robot's joints are {self._robot.joint_names}")
        if not NewtonManager.get_model().constraint_mimic_count:
            raise RuntimeError("the second finger does not follow the first: the robot's NewtonMimicAPI was not read")
        self._home_quat = kinematics.eef_pose(np.array([contract.DEFAULT_JOINT_POS[: contract.NUM_ARM_JOINTS]]))[1][0]
        self.reset(range(num_envs), range(num_envs))
        record_physics(self.env)
        self.reset(range(num_envs), range(num_envs))

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> None:
        """Start the episode of a seed in each of these rows. Other rows are not changed."""
        ids = torch.tensor(rows, dtype=torch.int32, device=self.env.device)
        self.env.reset_rows(ids)
        starts = [sample_reset(seed, len(CUBES), kinematics.ARM_LIMITS) for seed in seeds]
        joints = self._tensor(np.stack([start.joint_pos for start in starts]))
        self._robot.write_joint_position_to_sim_index(position=joints, env_ids=ids)
        self._robot.write_joint_velocity_to_sim_index(velocity=torch.zeros_like(joints), env_ids=ids)
        self._robot.set_joint_position_target_index(target=joints, env_ids=ids)
        self._robot.set_joint_velocity_target_index(target=torch.zeros_like(joints), env_ids=ids)
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
        refresh(self.env)

    def step(self, actions: np.ndarray) -> None:
        """One control step of every env with actions (N, 7)."""
        self.env.step(self._tensor(actions))

    def write(self, shared: SharedArrays) -> None:
        """Copy observation (without images) and termination terms into `shared`, in the form of the contract.

        Raises:
            StaleObservation: see `check_fresh`.
        """
        policy = {key: value.cpu().numpy() for key, value in self.env.obs_buf["policy"].items()}
        policy = to_contract(policy, self.env.scene.env_origins.cpu().numpy(), self._home_quat)
        for key, value in policy.items():
            shared.observation["policy"][key][:] = value
        for key, value in self.env.obs_buf["subtask_terms"].items():
            shared.observation["subtask_terms"][key][:] = value.cpu().numpy()
        term = self.env.termination_manager.get_term
        shared.success[:] = term("success").cpu().numpy()
        shared.time_out[:] = term("time_out").cpu().numpy()
        shared.dropped[:] = np.any([term(f"{cube}_dropping").cpu().numpy() for cube in CUBES], axis=0)
        self.check_fresh(policy)

    def write_images(self, shared: SharedArrays) -> None:
        """Render the observation's images into `shared`."""
        for camera in contract.CAMERA_NAMES:
            shared.observation["policy"][camera][:] = self._image(camera)

    def write_frames(self, shared: SharedArrays) -> None:
        """Copy a video frame of every env into `shared`."""
        for i, camera in enumerate(contract.CAMERA_NAMES):
            shared.frames[:, :, i * VIDEO_SIZE : (i + 1) * VIDEO_SIZE] = self._image(VIDEO_PREFIX + camera)

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

    def close(self) -> None:
        self.env.close()
        self._open.close()

    def _image(self, camera: str) -> np.ndarray:
        """Images of a camera, (N, H, W, 3) uint8, like the task's ``image_rgb``. Rendered if the state has changed."""
        image = self.env.scene[camera].data.output["rgb"]
        return torch.as_tensor(getattr(image, "torch", image))[..., :3].cpu().numpy()

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(values, np.float32), device=self.env.device)


def task_config(num_envs: int, image_size: int, max_episode_steps: int, device: str, hand: str) -> Any:
    """The task's own config, changed so that it runs on Newton without Kit."""
    from isaaclab_newton.renderers import NewtonWarpRendererCfg
    from isaaclab_tasks.utils import parse_env_cfg

    cfg = parse_env_cfg(TASK_ID, device=device, num_envs=num_envs, overrides=[f"physics={PHYSICS}"])
    cfg.seed = 0
    # Newton keeps each env in a separate world. With one origin for all, rounding does not depend on the env's row.
    cfg.scene.env_spacing = 0.0
    cfg.scene.replicate_physics = True  # otherwise the Newton model is empty
    cfg.sim.render_interval = cfg.decimation
    cfg.events = {}  # `NewtonSimulation.reset` replaces the task's reset events
    cfg.episode_length_s = (max_episode_steps - 0.5) * cfg.decimation * cfg.sim.dt  # rounded up to whole steps
    cfg.scene.wrist_cam.prim_path = f"{{ENV_REGEX_NS}}/Robot/{hand}/wrist_cam"
    for name in contract.CAMERA_NAMES:
        camera = getattr(cfg.scene, name)
        camera.data_types = ["rgb"]
        camera.renderer_cfg = NewtonWarpRendererCfg()
        camera.update_latest_camera_pose = True  # otherwise the camera stays at its pose of the last reset
        film = copy.deepcopy(camera)
        film.prim_path = camera.prim_path.removesuffix(name) + VIDEO_PREFIX + name
        camera.width = camera.height = image_size
        film.width = film.height = VIDEO_SIZE
        setattr(cfg.scene, VIDEO_PREFIX + name, film)
        setattr(cfg.observations.policy, name, None)  # images are read by `write_images`, not in every step
    return cfg


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
