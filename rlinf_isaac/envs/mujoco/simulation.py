"""N independent simulations of one scene, with resets by seed, control steps and measurements."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from rlinf_isaac.envs.mujoco import robot, scene
from rlinf_isaac.envs.mujoco.ik import RelativeIkController, gripper_targets
from rlinf_isaac.envs.mujoco.measurement import Measurements
from rlinf_isaac.envs.mujoco.varied import VariedModels
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.envs.stack_cube.randomisation import sample_reset
from rlinf_isaac.tasks.variation import Variation


class Simulation:
    """One model with N states (rows). A row's simulation depends only on its own seed and actions. Where episodes are
    varied, each row has a model of its own.

    Attributes:
        mjcf: the scene's text.
        model: the compiled scene.
        models: the model of each row: `model`, or its variation in the row's episode.
        data: one state per row; kinematics and cameras are up to date between calls.
        measured: measurements of every row after its last reset or control step.
    """

    def __init__(self, num_envs: int, num_cubes: int, varied: Variation | None = None) -> None:
        self.mjcf = scene.scene_mjcf(num_cubes)
        self.model = mujoco.MjModel.from_xml_string(self.mjcf)
        self._varied = None if varied is None else VariedModels(self.model, num_envs, num_cubes, varied)
        self.models = [self.model] * num_envs if self._varied is None else self._varied.models
        self.data = [mujoco.MjData(model) for model in self.models]
        self.measured = Measurements(self.model, self.data, num_cubes)
        self._num_cubes = num_cubes
        self._ik = RelativeIkController(self.model, self.data)
        self._arm = [data.ctrl[: contract.NUM_ARM_JOINTS] for data in self.data]
        self._fingers = [data.ctrl[contract.NUM_ARM_JOINTS :] for data in self.data]
        joints = robot.ARM_JOINTS + robot.FINGER_JOINTS
        self._qpos = np.array([self.model.joint(name).qposadr[0] for name in joints])
        self._joint_limits = np.array([self.model.joint(name).range for name in robot.ARM_JOINTS])
        cubes = [self.model.joint(scene.cube_name(i)).qposadr[0] for i in range(1, num_cubes + 1)]
        self._cube_qpos = np.array(cubes)[:, None] + np.arange(7)

    def reset(self, row: int, seed: int) -> None:
        """Start the episode of `seed`. The state is bit by bit the same in every row and after any earlier episode."""
        model, data = self.models[row], self.data[row]
        if self._varied is not None:
            self._varied.apply(row, data, seed)
        mujoco.mj_resetData(model, data)
        start = sample_reset(seed, self._num_cubes, self._joint_limits)
        data.qpos[self._qpos] = start.joint_pos
        data.ctrl[:] = start.joint_pos
        poses = np.zeros((self._num_cubes, 7))
        poses[:, :2] = start.cube_xy
        poses[:, 2] = contract.CUBE_RESET_HEIGHT
        poses[:, 3], poses[:, 6] = np.cos(start.cube_yaw / 2), np.sin(start.cube_yaw / 2)
        data.qpos[self._cube_qpos] = poses
        mujoco.mj_forward(model, data)
        self.measured.read([row])

    def control_step(self, rows: Sequence[int], actions: np.ndarray) -> None:
        """Apply an action each, (R, 7), to these rows for 1 / 20 s.

        The target pose is computed once, and IK is solved every 0.01 s, for all rows together.
        """
        actions = np.asarray(actions, np.float64)
        positions, quats = self._ik.target_poses(rows, actions)
        for row, target in zip(rows, gripper_targets(actions), strict=True):
            self._fingers[row][:] = target
        for _ in range(scene.PHYSICS_STEPS_PER_CONTROL_STEP // scene.PHYSICS_STEPS_PER_IK_SOLVE):
            for row, target in zip(rows, self._ik.joint_targets(rows, positions, quats), strict=True):
                model, data = self.models[row], self.data[row]
                self._arm[row][:] = target
                mujoco.mj_step(model, data, scene.PHYSICS_STEPS_PER_IK_SOLVE)
                # mj_step leaves the kinematics of the state before its last integration, so they are updated here.
                mujoco.mj_kinematics(model, data)
                mujoco.mj_comPos(model, data)
        for row in rows:
            mujoco.mj_camlight(self.models[row], self.data[row])
        self.measured.read(rows)
