"""The processes that train one model together, and functions for tensors that may be sharded over them.

In a fine-tuning, every process draws the noise of the whole batch and loads its own rows, so the training equals that
of a single process up to rounding. Checkpoints and training states are unsharded; the first process writes them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
Name = TypeVar("Name", bound=Hashable)
BUCKET_MIB = 200
"""Size of the buckets in which gradients are reduced. Larger ones need fewer calls, but more memory, and DDP starts the
all-reduce of a larger one later."""


@dataclass(frozen=True)
class Team:
    """This process's place among the processes that train together; the default is a single process.

    Attributes:
        rank: rank of this process.
        size: number of processes.
        local_rank: rank of this process on its machine.
        local_size: number of processes on its machine; 0 if all processes are on it.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and yields events."""
        return self.rank == 0

    @property
    def here(self) -> int:
        """Number of processes on this machine."""
        return self.local_size or self.size

    @property
    def machines(self) -> int:
        """Number of machines."""
        return self.size // self.here

    def device(self, name: str) -> torch.device:
        """The device of this process: with several processes the GPU with its local rank."""
        return torch.device(name, self.local_rank) if name == "cuda" and self.size > 1 else torch.device(name)

    def rows(self, batch_size: int) -> slice:
        """The rows of a batch for this process."""
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes. Collective call: every rank must call it."""
        if self.size > 1:
            dist.all_reduce(value)
        return value / self.size

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place. Collective call: every rank must call it."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def largest(self, value: Tensor) -> Tensor:
        """The maximum of a tensor over all processes, element by element, in place. Collective call."""
        if self.size > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return value

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over all processes, in place, many of them in one call. They are dense, on one device, and the
        same in every process in number, order, shape and dtype. Collective call: every rank must call it."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            together = self.total(torch.cat([tensor.reshape(-1) for tensor in bucket]))
            pieces = together.split([tensor.numel() for tensor in bucket])
            torch._foreach_copy_(list(bucket), [p.view_as(t) for p, t in zip(pieces, bucket, strict=True)])

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks; small ones, for they are pickled. Collective call:
        every rank must call it, and all get the list."""
        if self.size == 1:
            return [value]
        found: list[T] = [value] * self.size
        dist.all_gather_object(found, value)
        return found

    def collect(self, tensors: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
        """Gather sharded tensors. Collective call: every rank must call it; only rank 0 gets the tensors."""
        if self.size == 1:
            return dict(tensors)
        gathered = ((name, whole(tensor)) for name, tensor in tensors.items())
        return {name: tensor.cpu() for name, tensor in gathered if self.first}


ALONE = Team()
"""A single process."""


def _buckets(tensors: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """The tensors, those of one dtype together, in pieces of at most `BUCKET_MIB`; a larger tensor is alone."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[Tensor] = []
        size = 0
        for tensor in tensors:
            if tensor.dtype == dtype:
                own = tensor.numel() * tensor.element_size()
                if bucket and size + own > BUCKET_MIB << 20:
                    yield bucket
                    bucket, size = [], 0
                bucket.append(tensor)
                size += own
        yield bucket


def is_sharded(tensor: Tensor) -> bool:
    """Whether the tensor is sharded over the processes (a DTensor)."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The unsharded tensor. Collective call if the tensor is sharded."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def summed(value: Tensor, sharded: Tensor) -> Tensor:
    """The sum of a scalar over the shards of the tensor `sharded`. Collective call: every rank must call it.

    With several machines, each machine has all shards, so the sum over all processes is divided accordingly.
    """
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(sharded, DTensor)
    dist.all_reduce(value)
    mesh = sharded.device_mesh
    shards = [size for size, placed in zip(mesh.shape, sharded.placements, strict=True) if isinstance(placed, Shard)]
    return value * math.prod(shards) / mesh.size()


def own_part(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, as a view of the same memory."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def shard_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Move an unsharded tensor to the device of `parameter`, and shard it in the same way."""
    tensor = tensor.to(parameter.device)
    if not is_sharded(parameter):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
