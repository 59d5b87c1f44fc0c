"""What tensors a checkpoint has: what every reader of a format gives to the plan. Pure, no torch.

A tensor is a strided view of a storage, a storage a run of bytes of a file. Tensors that share a storage are how torch
saves tied weights and slices of a fused weight, so a storage is compared by what it is, not by what it holds. The
values are read by the libraries (`checkpoint.convert.source`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.checkpoint.header import BITS, TensorInfo

if TYPE_CHECKING:
    import numpy as np

Keys = tuple[str, ...]
"""Keys of the containers around a tensor, and its own."""

# torch's name of a dtype -> safetensors' name.
_NAMES = (
    "bool BOOL, uint8 U8, int8 I8, int16 I16, uint16 U16, int32 I32, uint32 U32, int64 I64, uint64 U64, float16 F16, "
    "bfloat16 BF16, float32 F32, float64 F64, complex64 C64, float8_e4m3fn F8_E4M3, float8_e5m2 F8_E5M2, "
    "float8_e8m0fnu F8_E8M0, float8_e4m3fnuz F8_E4M3FNUZ, float8_e5m2fnuz F8_E5M2FNUZ"
)
DTYPES = {torch: stored for torch, stored in map(str.split, _NAMES.split(", "))}
TORCH_NAMES = {stored: name for name, stored in DTYPES.items()}


@dataclass(frozen=True)
class Storage:
    """A run of bytes that tensors are views of: what tells which of them share memory.

    Attributes:
        file: where it lies.
        name: within the file (``data/17``; the name of a safetensors tensor).
        size: bytes.
    """

    file: Path
    name: str
    size: int


@dataclass(frozen=True)
class DenseTensor:
    """A tensor that safetensors can hold.

    Attributes:
        dtype: as safetensors spells it (``BF16``).
        shape: sizes.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def info(self) -> TensorInfo:
        """dtype and shape."""
        return TensorInfo(self.dtype, self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, laid out densely."""
        return bytes_of(self.dtype, self.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes of what it is a view of: fewer than `nbytes` where it repeats elements (``tensor.expand``)."""
        return self.nbytes


@dataclass(frozen=True)
class StoredTensor(DenseTensor):
    """A strided view of a storage.

    Attributes:
        stride: steps between elements, in elements.
        storage: what it is a view of.
        offset: bytes from the storage's beginning to its first element.
        keys: lead to the tensor of the source that it is, or is a part of.
        shift: elements from that tensor's first one to its own.
    """

    stride: tuple[int, ...]
    storage: Storage
    offset: int = 0
    keys: Keys = field(default=(), compare=False)
    shift: int = field(default=0, compare=False)

    @property
    def stored_bytes(self) -> int:
        """Bytes of its storage."""
        return self.storage.size

    @property
    def span(self) -> tuple[int, int]:
        """First byte, and the one after the last, that it touches in its storage."""
        if 0 in self.shape:
            return self.offset, self.offset
        last = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return self.offset, self.offset + (last + 1) * BITS[self.dtype] // 8

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements lie densely and in order, as safetensors stores them."""
        return 0 in self.shape or all(
            size == 1 or step == dense
            for size, step, dense in zip(self.shape, self.stride, dense_stride(self.shape), strict=True)
        )


@dataclass(frozen=True)
class ZeroTensor(DenseTensor):
    """A tensor of zeros, which lies in no file."""


@dataclass(frozen=True)
class ComputedTensor(DenseTensor):
    """A tensor whose values are computed when they are asked for, such as a layer of an array of another format.

    Attributes:
        key: what it is; two of one dtype, shape and key are one and the same tensor.
        read: its values as an array of `shape`, whose elements are those of `dtype` or unsigned integers of its width
            with the same bits. It is called once for every use of the values, and nothing keeps them.
        files: what it reads, so that a change of them meanwhile is noticed.
    """

    key: tuple[str | int, ...]
    read: Callable[[], np.ndarray] = field(compare=False, repr=False)
    files: tuple[Path, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Unstorable:
    """A tensor that safetensors cannot hold.

    Attributes:
        kind: what it is: ``a sparse tensor``.
        cure: how to save it otherwise.
    """

    kind: str
    cure: str


AnyDense = StoredTensor | ComputedTensor
"""A tensor with values that a checkpoint holds."""

AnyTensor = AnyDense | Unstorable


def dense_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Stride, in elements, of a contiguous tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def bytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a dense tensor."""
    return math.prod(shape) * BITS[dtype] // 8


def shown(name: str) -> str:
    """A name from a file as it may be printed: not endless, and without what a terminal would obey."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= 200 else f"{text[:200]}..."
