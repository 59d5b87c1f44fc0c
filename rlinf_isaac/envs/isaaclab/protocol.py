"""The memory that this process and IsaacLab's share (`envs.host.protocol`). Both import this module, which needs only
numpy."""

from __future__ import annotations

import os

import numpy as np

from rlinf_isaac.envs.host.protocol import map_arrays
from rlinf_isaac.envs.stack_cube import contract

VIDEO_SIZE = 256
"""Height, and width per camera, of frames for videos, in pixels."""


class SharedArrays:
    """Arrays in the shared memory: the observation of the contract, and inputs and results of a step.

    Attributes:
        observation: group -> key -> (N, ...), as in `contract.observation_spec`.
        actions: (N, 7) float32, the actions of the next step.
        active: (N,) bool, the envs whose actions are used; the others get a zero action.
        success, dropped, time_out: (N,) termination terms after the last step.
        frames: (N, VIDEO_SIZE, 2 x VIDEO_SIZE, 3) uint8, both cameras side by side.
    """

    def __init__(self, num_envs: int, task: contract.TaskSpec, image_size: int, fd: int | None = None) -> None:
        """Map the memory with the file descriptor `fd`, or create it if `fd` is None."""
        flag, uint8, float32 = np.dtype(bool), np.dtype(np.uint8), np.dtype(np.float32)
        layout = {
            f"{group}/{key}": spec
            for group, specs in contract.observation_spec(task, image_size).items()
            for key, spec in specs.items()
        }
        layout["actions"] = contract.ArraySpec((contract.ACTION_DIM,), float32)
        layout |= {name: contract.ArraySpec((), flag) for name in ("active", "success", "dropped", "time_out")}
        layout["frames"] = contract.ArraySpec((VIDEO_SIZE, 2 * VIDEO_SIZE, 3), uint8)
        self.fd = os.memfd_create("isaaclab") if fd is None else fd
        arrays = map_arrays(self.fd, {name: ((num_envs, *spec.shape), spec.dtype) for name, spec in layout.items()})
        self.actions, self.active, self.frames = arrays["actions"], arrays["active"], arrays["frames"]
        self.success, self.dropped, self.time_out = arrays["success"], arrays["dropped"], arrays["time_out"]
        self.observation: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            group, slash, key = name.partition("/")
            if slash:
                self.observation.setdefault(group, {})[key] = array
