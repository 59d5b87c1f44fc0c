"""Everything that a value holds of tensors in one piece of memory, so that it goes to another process as one.

Each piece of shared memory that travels is a connection between the two processes, a handshake and an open file; a
batch has a dozen tensors. Strides are kept: in another layout a convolution may round differently.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, NamedTuple

import torch
from torch import Tensor

_ALIGNMENT = 64


class Packed(NamedTuple):
    """A value: the bytes of its tensors (N,) uint8, and what is left of it, pickled, with places in their stead."""

    memory: Tensor
    rest: bytes


class _Place(NamedTuple):
    """Where in the memory a tensor lies."""

    first: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """How many it takes, from its first element to its last."""
        reach = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return 0 if 0 in self.shape else (1 + reach) * self.dtype.itemsize

    def view(self, memory: Tensor) -> Tensor:
        """The tensor, in that memory."""
        part = memory[self.first : self.first + self.bytes]
        return part.view(self.dtype).as_strided(self.shape, self.stride)


def pack(value: Any) -> Packed:
    """Copy the tensors of `value`, on the CPU and without gradient, into one piece of shared memory."""
    file = io.BytesIO()
    pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.dump(value)
    memory = torch.empty(pickler.size, dtype=torch.uint8).share_memory_()
    for tensor, place in pickler.tensors:
        place.view(memory).copy_(tensor)
    return Packed(memory, file.getvalue())


def unpack(packed: Packed) -> Any:
    """The value, its tensors in the memory in which they came."""
    return _Unpickler(packed).load()


class _Pickler(pickle.Pickler):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.size = 0
        self.tensors: list[tuple[Tensor, _Place]] = []

    def persistent_id(self, value: Any) -> tuple[_Place, tuple[int, ...]] | None:
        if not isinstance(value, Tensor):
            return None
        # One row that stands for many is one row in memory, too.
        once = value[tuple(slice(None if step else 1) for step in value.stride())] if value.numel() else value
        place = _Place(self.size, value.dtype, tuple(once.shape), once.stride())
        self.tensors.append((once, place))
        self.size += -(-place.bytes // _ALIGNMENT) * _ALIGNMENT
        return place, tuple(value.shape)


class _Unpickler(pickle.Unpickler):
    def __init__(self, packed: Packed) -> None:
        super().__init__(io.BytesIO(packed.rest))
        self.memory = packed.memory

    def persistent_load(self, identity: tuple[_Place, tuple[int, ...]]) -> Tensor:
        place, shape = identity
        return place.view(self.memory).expand(shape)
