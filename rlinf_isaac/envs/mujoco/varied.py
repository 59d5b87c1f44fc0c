"""Applies the variation of an episode to the model of its row.

Each row of a varied simulation has a model of its own, a copy of the compiled scene. What one axis varies is written
anew from the scene's own values at every reset, so nothing of an earlier episode is left.
"""

from __future__ import annotations

import copy

import mujoco
import numpy as np

from rlinf_isaac.envs.mujoco import scene
from rlinf_isaac.envs.stack_cube import contract, variation
from rlinf_isaac.tasks.variation import Variation

SURFACES = ("table", "mat", "floor")
TOUCHED = ("table", "pad_1", "pad_2")
"""What cubes touch besides each other."""
AXES = ("light", "camera", "texture", "mass")
"""What is varied inside of this simulator."""


class VariedModels:
    """The models of a simulation's rows, one for each.

    Attributes:
        models: the model of each row.
    """

    def __init__(self, model: mujoco.MjModel, num_envs: int, num_cubes: int, varied: Variation) -> None:
        """
        Args:
            model: the compiled scene, which stays as it is.
            num_envs: number of rows.
            num_cubes: number of cubes in the scene.
            varied: of an axis of `AXES`.
        """
        assert varied.axis in AXES, varied.axis
        self.models = [copy.copy(model) for _ in range(num_envs)]
        self._usual, self._varied = model, varied
        self._cubes = [scene.cube_name(number) for number in range(1, num_cubes + 1)]

    def apply(self, row: int, data: mujoco.MjData, seed: int) -> None:
        """Make the model of a row that of the episode with this seed; `data` is the row's, and is reset afterwards."""
        getattr(self, f"_{self._varied.axis}")(self.models[row], data, seed)

    def _light(self, model: mujoco.MjModel, data: mujoco.MjData, seed: int) -> None:
        drawn, usual = variation.light(self._varied, seed), self._usual
        model.light_diffuse[:] = drawn.intensity * usual.light_diffuse
        model.light_dir[:] = [_turned(direction, drawn.axis, drawn.angle) for direction in usual.light_dir]
        for name in ("ambient", "diffuse"):
            getattr(model.vis.headlight, name)[:] = drawn.intensity * getattr(usual.vis.headlight, name)

    def _camera(self, model: mujoco.MjModel, data: mujoco.MjData, seed: int) -> None:
        drawn, usual = variation.camera(self._varied, seed), self._usual
        at = usual.camera(contract.TABLE_CAM).id
        model.cam_pos[at] = usual.cam_pos[at] + drawn.shift
        turn, quat = np.empty(4), np.empty(4)
        mujoco.mju_axisAngle2Quat(turn, drawn.axis, drawn.angle)
        mujoco.mju_mulQuat(quat, usual.cam_quat[at], turn)
        model.cam_quat[at], model.cam_fovy[at] = quat, drawn.zoom * usual.cam_fovy[at]

    def _texture(self, model: mujoco.MjModel, data: mujoco.MjData, seed: int) -> None:
        drawn, usual = variation.texture(self._varied, seed, len(SURFACES), len(self._cubes)), self._usual
        for name, added in zip(SURFACES, drawn.surfaces, strict=True):
            at = usual.geom(name).id
            model.geom_rgba[at, :3] = np.clip(usual.geom_rgba[at, :3] + added, 0, 1)
        for name, shade in zip(self._cubes, drawn.shades, strict=True):
            at = usual.geom(name).id
            model.geom_rgba[at, :3] = np.clip(usual.geom_rgba[at, :3] * shade, 0, 1)

    def _mass(self, model: mujoco.MjModel, data: mujoco.MjData, seed: int) -> None:
        drawn, usual = variation.mass(self._varied, seed, len(self._cubes)), self._usual
        for name, factor in zip(self._cubes, drawn.cubes, strict=True):
            at = usual.body(name).id
            model.body_mass[at], model.body_inertia[at] = factor * usual.body_mass[at], factor * usual.body_inertia[at]
        for name in (*TOUCHED, *self._cubes):
            at = usual.geom(name).id
            model.geom_friction[at, 0] = drawn.friction * usual.geom_friction[at, 0]
        mujoco.mj_setConst(model, data)  # what MuJoCo derives of the masses


def _turned(vector: np.ndarray, axis: np.ndarray, angle: float) -> np.ndarray:
    """`vector` (3,) turned about a unit axis (3,) by an angle in radians."""
    quat, turned = np.empty(4), np.empty(3)
    mujoco.mju_axisAngle2Quat(quat, axis, angle)
    mujoco.mju_rotVecQuat(turned, vector, quat)
    return turned
