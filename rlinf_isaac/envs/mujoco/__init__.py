"""The embedded stack-cube environment on plain MuJoCo."""

from __future__ import annotations

import ctypes
import os


def _egl_loads() -> bool:
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return False
    return True


# `import mujoco` raises AttributeError if MUJOCO_GL=egl and there is no libEGL. With GL disabled it works, and the ray
# caster can be used. This must run before any module of this package imports mujoco.
if os.environ.get("MUJOCO_GL", "").lower() == "egl" and not _egl_loads():
    os.environ["MUJOCO_GL"] = "disable"
