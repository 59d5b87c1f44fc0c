"""Packs all tensors of a value into one block of shared memory, to send them to another process together.

Each block of shared memory that is sent costs a connection between the two processes, a handshake and an open file, and
a batch has a dozen tensors. Strides are preserved, because a convolution may round differently in another layout.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, NamedTuple

import torch
from torch import Tensor

_ALIGNMENT = 64


class Packed(NamedTuple):
    """A packed value.

    Attributes:
        memory: (N,) uint8, bytes of all tensors.
        rest: the pickled value, with a `_Place` instead of each tensor.
    """

    memory: Tensor
    rest: bytes


class _Place(NamedTuple):
    """Position and layout of a tensor in the memory."""

    first: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Number of bytes from the first element to the last."""
        reach = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return 0 if 0 in self.shape else (1 + reach) * self.dtype.itemsize

    def view(self, memory: Tensor) -> Tensor:
        """The tensor as a view of `memory`."""
        part = memory[self.first : self.first + self.bytes]
        return part.view(self.dtype).as_strided(self.shape, self.stride)


def pack(value: Any) -> Packed:
    """Pack `value`: its tensors, on the CPU and without gradients, are copied into one block of shared memory."""
    file = io.BytesIO()
    pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.dump(value)
    memory = torch.empty(pickler.size, dtype=torch.uint8).share_memory_()
    for tensor, place in pickler.tensors:
        place.view(memory).copy_(tensor)
    return Packed(memory, file.getvalue())


def unpack(packed: Packed) -> Any:
    """Unpack a value; its tensors are views of the shared memory."""
    return _Unpickler(packed).load()


class _Pickler(pickle.Pickler):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.size = 0
        self.tensors: list[tuple[Tensor, _Place]] = []

    def persistent_id(self, value: Any) -> tuple[_Place, tuple[int, ...]] | None:
        if not isinstance(value, Tensor):
            return None
        # An expanded dim (stride 0) is stored once and expanded again when unpacked.
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
