"""Processes that train one model together, and tensors of which each may hold a part.

Every process draws the whole batch's noise and loads its own rows, so that the training is the one of a single process
up to rounding. Checkpoints and training states are whole, in the files that one process writes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Team:
    """Process `rank` of `size` that train together, the `local_rank`-th of its machine's `local_size` (0: all of them).

    Alone it changes nothing.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes files and tells of what happened."""
        return self.rank == 0

    @property
    def machines(self) -> int:
        """On how many machines they are."""
        return self.size // (self.local_size or self.size)

    def device(self, name: str) -> torch.device:
        """This process's device: of several GPUs the one with its rank on this machine."""
        return torch.device(name, self.local_rank) if name == "cuda" and self.size > 1 else torch.device(name)

    def rows(self, batch_size: int) -> slice:
        """This process's share of a batch."""
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a scalar over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value / self.size

    def collect(self, tensors: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
        """The whole tensors, in the first process; all have to ask, and the others get nothing."""
        if self.size == 1:
            return dict(tensors)
        gathered = ((name, whole(tensor)) for name, tensor in tensors.items())
        return {name: tensor.cpu() for name, tensor in gathered if self.first}


def is_sharded(tensor: Tensor) -> bool:
    """Whether each process has a part of the tensor."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which the processes have shards, if they have. All of them have to ask."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def summed(value: Tensor, sharded: Tensor) -> Tensor:
    """The sum of a scalar over the shards of a tensor; all processes have to ask.

    On several machines each of them has all the shards.
    """
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(sharded, DTensor)
    dist.all_reduce(value)
    mesh = sharded.device_mesh
    shards = [size for size, placed in zip(mesh.shape, sharded.placements, strict=True) if isinstance(placed, Shard)]
    return value * math.prod(shards) / mesh.size()


def own_part(tensor: Tensor) -> Tensor:
    """This process's shard, in the same memory."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def shard_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor on the device of `parameter`, of which this process keeps what it keeps of that."""
    tensor = tensor.to(parameter.device)
    if not is_sharded(parameter):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
