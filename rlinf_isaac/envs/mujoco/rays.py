"""A renderer that uses MuJoCo's CPU ray caster (``mj_multiRay``): one ray per pixel, without GL.

Shading is that of MuJoCo's fixed-function rasteriser for matte geoms (Lambert: head light plus directional lights), so
that images look like those of EGL. It needs the normals output of ``mj_multiRay``.
"""

from __future__ import annotations

import mujoco
import numpy as np


class RayRenderer:
    """Square images by ray casting."""

    name = "rays"

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        self._model = model
        self._size = size
        self._rays = {camera: _pixel_rays(model.cam_fovy[camera], size) for camera in range(model.ncam)}
        self._geom = np.empty(size * size, np.int32)
        self._distance = np.empty(size * size)
        self._normal = np.empty(size * size * 3)
        self._colours = _geom_colours(model)
        self._reach = model.vis.map.zfar * model.stat.extent

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        model = data.model  # this one or a variation of it (`varied`)
        camera_id = model.camera(camera).id
        to_world = data.cam_xmat[camera_id].reshape(3, 3)
        rays, usual = self._rays[camera_id], model is self._model
        if model.cam_fovy[camera_id] != self._model.cam_fovy[camera_id]:
            rays = _pixel_rays(model.cam_fovy[camera_id], self._size)
        rays = rays @ to_world.T
        mujoco.mj_multiRay(
            model,
            data,
            data.cam_xpos[camera_id],
            rays.ravel(),
            None,  # every geom group
            True,  # static geoms too
            -1,  # no excluded body
            self._geom,
            self._distance,
            self._normal,
            len(rays),
            self._reach,
        )
        normals = self._normal.reshape(-1, 3)
        backwards = to_world[:, 2]
        light = _facing(normals, backwards, model.vis.headlight.diffuse) + model.vis.headlight.ambient
        for i in range(model.nlight):
            light += _facing(normals, -data.light_xdir[i], model.light_diffuse[i]) + model.light_ambient[i]
        painted = self._colours if usual else _geom_colours(model)
        colours = np.minimum(painted[self._geom] * light, 1.0)
        colours[self._geom < 0] = 0.0  # the rasteriser's clear colour
        return np.rint(colours * 255).astype(np.uint8).reshape(self._size, self._size, 3)

    def close(self) -> None: ...


def _pixel_rays(fovy: float, size: int) -> np.ndarray:
    """Unit directions (size * size, 3) through pixel centres in the camera's frame, in row-major order from the top."""
    half = np.tan(np.radians(fovy) / 2)
    offsets = (2 * (np.arange(size) + 0.5) / size - 1) * half
    x, y = np.meshgrid(offsets, -offsets)
    directions = np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _facing(normals: np.ndarray, towards_light: np.ndarray, diffuse: np.ndarray) -> np.ndarray:
    return np.maximum(normals @ towards_light, 0.0)[:, None] * diffuse


def _geom_colours(model: mujoco.MjModel) -> np.ndarray:
    """RGB colours (ngeom, 3) of the geoms. The colour of a geom's material takes precedence."""
    colours = model.geom_rgba[:, :3].astype(np.float64)
    materials = model.geom_matid
    colours[materials >= 0] = model.mat_rgba[materials[materials >= 0], :3]
    return colours
