"""Two renderers of MuJoCo scenes: EGL (fast) and ray casting (needs no GL).

They agree in geometry and colours, but differ by a few grey levels in shading and at edges. So an environment records
its renderer (`EnvIdentity.renderer`), and data of the two is not mixed silently.

The environment variable MUJOCO_GL has no effect, except that a value that disables GL (``disable``) is respected.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import weakref
from functools import cache
from pathlib import Path
from typing import Protocol

import mujoco
import numpy as np

from rlinf_isaac.envs.mujoco.rays import RayRenderer
from rlinf_isaac.envs.stack_cube.backends import check_renderer
from rlinf_isaac.ground.errors import SimulatorError

_EGL_CURE = "install an EGL driver (Debian: libegl1 libopengl0 libgl1-mesa-dri)"
_GL_OFF = ("disable", "disabled", "off", "false", "0")

logger = logging.getLogger("rlinf_isaac")


class Renderer(Protocol):
    """Renders square images of one model."""

    name: str

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """(size, size, 3) uint8 RGB, a new array. Needs up-to-date kinematics and cameras in `data`, which is a state
        of the model or of a variation of it."""
        ...

    def close(self) -> None:
        """Free the renderer's resources; it cannot render after that. Calling this twice is allowed."""
        ...


class EglRenderer:
    """MuJoCo's own rasteriser in an off-screen EGL context: Mesa's software GL or a GPU vendor's driver."""

    name = "egl"

    def __init__(self, model: mujoco.MjModel, size: int, *, shadows: bool = False) -> None:
        """
        Args:
            model: the model of the scene.
            size: image width and height in pixels.
            shadows: draw shadows, if the model has a shadow map (``visual/quality/shadowsize``).
        """
        # With rasteriser threads, Mesa's llvmpipe may free a fence while a thread still unlocks its mutex
        # (lp_fence_signalled reads the counter without the lock). This corrupted the heap about once in 50 000 images.
        # Small images are rendered as fast without threads. The variable must be set before the first context.
        os.environ.setdefault("LP_NUM_THREADS", "0")
        _load_triton_first()
        from mujoco.egl import GLContext

        self._model = model
        self._rect = mujoco.MjrRect(0, 0, size, size)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._option = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 32)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        for flag in (mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE):
            self._scene.flags[flag] = False
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, size)
        model.vis.global_.offheight = max(model.vis.global_.offheight, size)
        gl = GLContext(size, size)
        gl.make_current()
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        self._gl, self._context = gl, context
        # The finalizer also runs at exit: a context that is freed after EGL has shut down prints errors.
        self.close = weakref.finalize(self, _free, gl, context)

    def render(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        self._gl.make_current()
        self._camera.fixedcamid = self._model.camera(camera).id
        categories = mujoco.mjtCatBit.mjCAT_ALL
        # The state's own model, which may be a variation of this one (`varied`): colours, lights and cameras are its.
        mujoco.mjv_updateScene(data.model, data, self._option, None, self._camera, categories, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        image = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, self._rect, self._context)
        return np.ascontiguousarray(image[::-1])  # GL's first row is the bottom one


def _load_triton_first() -> None:
    """Load Triton's library, if it is installed, before Mesa's.

    Mesa's software renderer loads an LLVM whose symbols are visible to all libraries that are loaded later. Triton's
    calls to its own LLVM would then go to Mesa's, and ``import triton``, which torch may do, would crash.
    """
    spec = importlib.util.find_spec("triton")
    if spec is not None and spec.origin is not None:
        library = Path(spec.origin).parent / "_C/libtriton.so"
        if library.exists():
            ctypes.CDLL(str(library))  # takes 45 ms; the Python module is not imported


def egl_problem() -> str | None:
    """Why EGL cannot render on this machine; None if it can. It is tried by rendering an image; nothing is raised."""
    if os.environ.get("MUJOCO_GL", "").lower() in _GL_OFF:
        return "MUJOCO_GL switches GL off"
    try:
        _render_by_egl()
    except Exception as error:  # the type of PyOpenGL's exception depends on what is missing
        return f"{type(error).__name__}: {error}"
    return None


@cache  # of what has worked: an exception is not kept
def _render_by_egl() -> None:
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><camera name='probe'/></worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = EglRenderer(model, 8)
    renderer.render(data, "probe")
    renderer.close()


def choose_renderer(choice: str) -> str:
    """Resolves ``auto``, ``egl`` or ``rays`` to ``egl`` or ``rays``.

    Raises:
        SimulatorError: the choice is unknown, or is ``egl`` although EGL does not work.
    """
    if problems := check_renderer("mujoco", choice):
        raise SimulatorError(problems)
    if choice == "rays":
        return "rays"
    problem = egl_problem()
    if problem is None:
        return "egl"
    if choice == "egl":
        raise SimulatorError.of(
            "no-egl",
            f"env.renderer is egl, which cannot be used: {problem}",
            f"{_EGL_CURE}, or set env.renderer=rays (--renderer rays)",
        )
    reason = " ".join(problem.split())[:160]
    logger.warning("slow renderer: EGL does not work here (%s), so images are drawn by rays; %s", reason, _EGL_CURE)
    return "rays"


def make_renderer(name: str, model: mujoco.MjModel, size: int) -> Renderer:
    """The renderer named ``egl`` or ``rays``, for square images with sides of `size` pixels."""
    return EglRenderer(model, size) if name == "egl" else RayRenderer(model, size)


def _free(gl: object, context: mujoco.MjrContext) -> None:
    gl.make_current()  # type: ignore[attr-defined]
    context.free()
    gl.free()  # type: ignore[attr-defined]
