from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from rlinf_isaac.envs.mujoco.rendering import EglRenderer, choose_renderer, egl_problem, make_renderer
from rlinf_isaac.envs.mujoco.simulation import Simulation
from rlinf_isaac.envs.stack_cube.contract import CAMERA_NAMES
from rlinf_isaac.ground.errors import SimulatorError

needs_egl = pytest.mark.skipif(egl_problem() is not None, reason=f"no EGL: {egl_problem()}")

PROBE = """
import sys
from rlinf_isaac.config.task import stack_cube
from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv
env = StackCubeVectorEnv(1, stack_cube("stack2"), image_size=24)
image = env.reset(seed=0)[0]["policy"]["table_cam"]
env.close()
print(env.identity.renderer, int(image.std() > 5))
"""
HIDE_EGL = """
import ctypes
real = ctypes.CDLL.__init__
def init(self, name=None, *args, **kwargs):
    if name and "EGL" in str(name):
        raise OSError(f"{name}: cannot open shared object file")
    real(self, name, *args, **kwargs)
ctypes.CDLL.__init__ = init
import ctypes.util
find = ctypes.util.find_library
ctypes.util.find_library = lambda name: None if "EGL" in name else find(name)
"""


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    simulation = Simulation(num_envs=2, num_cubes=3)
    simulation.reset(0, 0)
    simulation.reset(1, 1)
    return simulation


@needs_egl
@pytest.mark.parametrize("camera", CAMERA_NAMES)
def test_both_renderers_draw_the_same_picture(simulation: Simulation, camera: str) -> None:
    images = [make_renderer(name, simulation.model, 96).render(simulation.data[0], camera) for name in ("egl", "rays")]
    difference = np.abs(images[0].astype(int) - images[1]).max(axis=-1)
    assert images[0].shape == (96, 96, 3)
    assert images[0].dtype == np.uint8
    assert images[0].std() > 10
    assert difference.mean() < 2
    assert (difference > 12).mean() < 0.03


@pytest.mark.parametrize("name", [pytest.param("egl", marks=needs_egl), "rays"])
def test_table_camera_sees_each_cube_in_its_colour(simulation: Simulation, name: str) -> None:
    image = make_renderer(name, simulation.model, 96).render(simulation.data[0], "table_cam").astype(int)
    for channel in range(3):
        others = np.delete(image, channel, axis=-1).max(axis=-1)
        assert (image[..., channel] - others > 40).sum() > 20


@pytest.mark.parametrize("name", [pytest.param("egl", marks=needs_egl), "rays"])
def test_an_image_depends_on_its_state_alone(simulation: Simulation, name: str) -> None:
    renderer = make_renderer(name, simulation.model, 32)
    before = renderer.render(simulation.data[0], "table_cam")
    other = renderer.render(simulation.data[1], "wrist_cam")
    bigger = make_renderer(name, simulation.model, 48)
    bigger.render(simulation.data[1], "table_cam")
    np.testing.assert_array_equal(renderer.render(simulation.data[0], "table_cam"), before)
    assert (other != before).any()


@needs_egl
def test_closing_twice_is_fine(simulation: Simulation) -> None:
    renderer = EglRenderer(simulation.model, 16)
    renderer.close()
    renderer.close()


def test_unknown_renderer_is_named() -> None:
    with pytest.raises(SimulatorError, match="vulkan"):
        choose_renderer("vulkan")


def test_gl_switched_off(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disable")
    assert choose_renderer("auto") == "rays"
    assert "slow renderer: EGL does not work here (MUJOCO_GL switches GL off)" in caplog.text
    with pytest.raises(SimulatorError, match="renderer=rays"):
        choose_renderer("egl")


@pytest.mark.parametrize(
    ("environment", "prelude"),
    [
        pytest.param({"MUJOCO_GL": "disable"}, "", id="gl switched off"),
        pytest.param({"__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent"}, "", id="no driver"),
        pytest.param({"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent"}, "", id="asked for, no driver"),
        pytest.param({}, HIDE_EGL, id="no libEGL"),
        pytest.param({"MUJOCO_GL": "egl"}, HIDE_EGL, id="asked for, no libEGL"),
    ],
)
def test_without_egl_the_rays_take_over_in_one_line(environment: dict[str, str], prelude: str) -> None:
    clean = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    result = subprocess.run(
        [sys.executable, "-c", prelude + PROBE], env=clean | environment, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout.split()) == (0, ["rays", "1"])
    (said,) = result.stderr.splitlines()
    assert said.startswith("slow renderer: EGL does not work here (")


@needs_egl
def test_mesa_draws_in_the_calling_thread() -> None:
    """Its rasteriser threads have a race that corrupts the heap."""
    code = PROBE + "from pathlib import Path\n"
    code += "print(sum('llvmpipe' in comm.read_text() for comm in Path('/proc/self/task').glob('*/comm')))"
    clean = {key: value for key, value in os.environ.items() if key != "LP_NUM_THREADS"}
    result = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True)
    assert (result.returncode, result.stdout.split()) == (0, ["egl", "1", "0"])


@needs_egl
def test_an_environment_left_open_exits_quietly() -> None:
    code = PROBE.replace("env.close()\n", "")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout.split(), result.stderr) == (0, ["egl", "1"], "")


@needs_egl
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_triton_can_be_imported_after_something_was_rendered() -> None:
    """Mesa's LLVM and Triton's in one process ended it."""
    code = "from rlinf_isaac.envs.mujoco.rendering import egl_problem; assert not egl_problem(); import torch, triton"
    subprocess.run([sys.executable, "-c", code], check=True)
