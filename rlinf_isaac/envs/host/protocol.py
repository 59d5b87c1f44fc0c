"""Communication with a simulator's process: orders as JSON over a socket, arrays in shared memory.

The memory is an anonymous file that the other process inherits (``memfd_create``). It has no name, so nothing is left
behind if a process is killed. Both processes import this module, which needs only numpy.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

BLOCK = 16
"""Control steps that a worker takes at most before it answers."""
_ALIGNMENT = 64


class Leaf(NamedTuple):
    """An array of an environment's observation.

    Attributes:
        shape: of one env.
        dtype: numpy's short spelling, as ``<f4``.
        rendered: whether it is an image that is drawn only when asked for.
    """

    shape: tuple[int, ...]
    dtype: str
    rendered: bool = False


class SharedArrays:
    """What a `HostEnv` and its workers share.

    Attributes:
        observation: path -> (N, ...).
        actions: (N, BLOCK, A) float32, the actions of the next steps; the first of a row is what its expert has chosen.
        active: (N,) bool, the envs that an order concerns.
        limits: (N,) int64, how many steps an env may take at most.
        steps: (N,) int64, how many it took.
        rewards: (N, BLOCK) float32, of these steps; zero after them.
        success: (N,) bool, whether the success term has held long enough.
        failure: (N,) bool, the failure term after the last step.
        terminated, truncated: (N,) bool, what the environment said after the last step.
        judged: (N,) bool, whether `info` ever had, in this episode, what the success term reads.
    """

    FLAGS = ("active", "success", "failure", "terminated", "truncated", "judged")

    def __init__(self, fd: int, num_envs: int, action_dims: int, leaves: Mapping[str, Leaf]) -> None:
        layout = {f"observation/{path}": ((num_envs, *leaf.shape), leaf.dtype) for path, leaf in leaves.items()}
        layout |= {"actions": ((num_envs, BLOCK, action_dims), "<f4"), "rewards": ((num_envs, BLOCK), "<f4")}
        layout |= {name: ((num_envs,), "<i8") for name in ("limits", "steps")}
        layout |= {name: ((num_envs,), "|b1") for name in self.FLAGS}
        arrays = map_arrays(fd, layout)
        self.observation = {path: arrays[f"observation/{path}"] for path in leaves}
        self.actions, self.rewards = arrays["actions"], arrays["rewards"]
        self.active, self.limits, self.steps = arrays["active"], arrays["limits"], arrays["steps"]
        self.success, self.failure, self.judged = arrays["success"], arrays["failure"], arrays["judged"]
        self.terminated, self.truncated = arrays["terminated"], arrays["truncated"]


def map_arrays(fd: int, layout: Mapping[str, tuple[tuple[int, ...], Any]]) -> dict[str, np.ndarray]:
    """Maps the memory behind a file descriptor, which gets the size that it takes, as arrays.

    Args:
        fd: the memory.
        layout: name -> shape and dtype, in the same order on both sides.
    """
    offsets, total = {}, 0
    for name, (shape, dtype) in layout.items():
        offsets[name] = total
        total += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // _ALIGNMENT) * _ALIGNMENT
    os.ftruncate(fd, total)
    memory = mmap.mmap(fd, total)
    return {name: np.ndarray(shape, dtype, memory, offsets[name]) for name, (shape, dtype) in layout.items()}


def send(connection: Connection, **message: Any) -> None:
    """Send a message. Raises OSError if the other process has ended."""
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> dict[str, Any]:
    """Wait for the next message. Raises EOFError or OSError if the other process has ended."""
    return json.loads(connection.recv_bytes())
