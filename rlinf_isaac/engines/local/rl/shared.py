"""Tensors in memory that several processes map: weights, gradients and experience of the players on a CPU.

The memory is an anonymous file (``memfd_create``), which unlike /dev/shm has no limit of its own in a container, and of
which nothing is left if a process is killed. Pages that nobody has written take no memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import torch
from torch import Tensor

Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Name of a tensor -> shape and dtype."""

_ALIGNMENT = 64


class SharedTensors:
    """Named tensors in one piece of memory, at first zero. A copy that is sent to another process has the same memory;
    it must arrive while the process that made the memory lives.

    Attributes:
        tensors: name -> tensor.
    """

    def __init__(self, layout: Layout, owner: int | None = None, fd: int | None = None) -> None:
        """Without `owner` (a process id) and `fd` (its file descriptor), the memory is new."""
        sizes = {name: math.prod(shape) * dtype.itemsize for name, (shape, dtype) in layout.items()}
        places, total = {}, 0
        for name, size in sizes.items():
            places[name] = total
            total += -(-size // _ALIGNMENT) * _ALIGNMENT
        if fd is None:
            fd = os.memfd_create("rlinf-isaac")
            os.ftruncate(fd, max(total, 1))
        self._layout, self._owner, self._fd = dict(layout), owner or os.getpid(), fd
        path = f"/proc/{self._owner}/fd/{fd}"
        memory = torch.from_file(path, shared=True, size=max(total, 1), dtype=torch.uint8)
        self.tensors: dict[str, Tensor] = {
            name: memory[places[name] : places[name] + sizes[name]].view(dtype).view(shape)
            for name, (shape, dtype) in layout.items()
        }

    def __reduce__(self) -> tuple[type[SharedTensors], tuple[Layout, int, int]]:
        return SharedTensors, (self._layout, self._owner, self._fd)

    def __del__(self) -> None:
        if getattr(self, "_owner", None) == os.getpid():
            os.close(self._fd)


def local_tensors(layout: Layout, device: torch.device, *, pinned: bool = False) -> dict[str, Tensor]:
    """Tensors of this process alone, uninitialised; `pinned` ones are in host memory that a GPU copies from."""
    place = torch.device("cpu") if pinned else device
    pin = pinned and device.type == "cuda"
    return {
        name: torch.empty(shape, dtype=dtype, device=place, pin_memory=pin) for name, (shape, dtype) in layout.items()
    }
