"""Communication with the simulator's process: orders as JSON over a socket, arrays in shared memory.

The memory is an anonymous file that the simulator inherits (``memfd_create``). It has no name, so nothing is left
behind if a process is killed. Both processes import this module, which needs only numpy.
"""

from __future__ import annotations

import json
import mmap
import os
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rlinf_isaac.envs.stack_cube import contract

VIDEO_SIZE = 256
"""Height, and width per camera, of frames for videos, in pixels."""

_ALIGNMENT = 64


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
        sizes = {name: num_envs * int(np.prod(spec.shape)) * spec.dtype.itemsize for name, spec in layout.items()}
        total = sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes.values())
        self.fd = os.memfd_create("isaaclab") if fd is None else fd
        os.ftruncate(self.fd, total)
        memory, offset = mmap.mmap(self.fd, total), 0
        arrays: dict[str, np.ndarray] = {}
        for name, spec in layout.items():
            shape = (num_envs, *spec.shape)
            arrays[name] = np.ndarray(shape, spec.dtype, memory, offset)
            offset += -(-sizes[name] // _ALIGNMENT) * _ALIGNMENT
        self.actions, self.active, self.frames = arrays["actions"], arrays["active"], arrays["frames"]
        self.success, self.dropped, self.time_out = arrays["success"], arrays["dropped"], arrays["time_out"]
        self.observation: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            group, slash, key = name.partition("/")
            if slash:
                self.observation.setdefault(group, {})[key] = array


def send(connection: Connection, **message: Any) -> None:
    """Send a message. Raises OSError if the other process has ended."""
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> dict[str, Any]:
    """Wait for the next message. Raises EOFError or OSError if the other process has ended."""
    return json.loads(connection.recv_bytes())
