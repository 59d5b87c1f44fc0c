"""Describes the tensors of a checkpoint, whatever its format. Nothing is read here, and torch is not imported.

A tensor is a strided view of a storage, and a storage is a run of bytes in a file. torch saves tied weights and slices
of a fused weight as tensors that share a storage. Two storages are therefore equal if they are the same bytes of the
same file, and not if their values are equal. The values are read later (`checkpoint.convert.source`).
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
"""The keys that lead to a tensor: those of the containers around it, and its own."""

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
    """A run of bytes of which tensors are views. Tensors with the same storage share memory.

    Attributes:
        file: the file that holds the bytes.
        name: name of the storage in the file (``data/17``, or the name of a safetensors tensor).
        size: number of bytes.
    """

    file: Path
    name: str
    size: int


@dataclass(frozen=True)
class DenseTensor:
    """A tensor that safetensors can hold.

    Attributes:
        dtype: safetensors' name of the dtype (``BF16``).
        shape: sizes of the axes.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def info(self) -> TensorInfo:
        """Its dtype and shape."""
        return TensorInfo(self.dtype, self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes of its elements, laid out densely."""
        return bytes_of(self.dtype, self.shape)

    @property
    def stored_bytes(self) -> int:
        """Number of bytes of its storage. It is below `nbytes` if the tensor repeats elements (``tensor.expand``)."""
        return self.nbytes


@dataclass(frozen=True)
class StoredTensor(DenseTensor):
    """A strided view of a storage.

    Attributes:
        stride: for each axis, the number of elements from one to the next in the storage.
        storage: the storage of which it is a view.
        offset: number of bytes from the beginning of the storage to the first element.
        keys: keys of the tensor in the source that is this one, or of which this one is a part.
        shift: number of elements from the first element of that tensor to the first element of this one.
    """

    stride: tuple[int, ...]
    storage: Storage
    offset: int = 0
    keys: Keys = field(default=(), compare=False)
    shift: int = field(default=0, compare=False)

    @property
    def stored_bytes(self) -> int:
        """Number of bytes of its storage."""
        return self.storage.size

    @property
    def span(self) -> tuple[int, int]:
        """The bytes of its storage that it uses: the offset of the first one, and the offset after the last one."""
        if 0 in self.shape:
            return self.offset, self.offset
        last = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return self.offset, self.offset + (last + 1) * BITS[self.dtype] // 8

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements are stored densely and in order, as safetensors stores them."""
        return 0 in self.shape or all(
            size == 1 or step == dense
            for size, step, dense in zip(self.shape, self.stride, dense_stride(self.shape), strict=True)
        )


@dataclass(frozen=True)
class ZeroTensor(DenseTensor):
    """A tensor of zeros that is in no file."""


@dataclass(frozen=True)
class ComputedTensor(DenseTensor):
    """A tensor whose values are computed when they are asked for, such as a layer of an array of another format.

    Attributes:
        key: identity of the tensor; tensors with the same dtype, shape and key are equal.
        read: returns the values as an array of `shape`, whose elements have `dtype` or are unsigned integers of its
            width with the same bits. It is called for every use of the values, which are not kept.
        files: the files that `read` reads, so that a change of them is noticed.
    """

    key: tuple[str | int, ...]
    read: Callable[[], np.ndarray] = field(compare=False, repr=False)
    files: tuple[Path, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Unstorable:
    """A tensor that safetensors cannot hold.

    Attributes:
        kind: its kind, such as ``a sparse tensor``.
        cure: how to save it in another way.
    """

    kind: str
    cure: str


AnyDense = StoredTensor | ComputedTensor
"""A tensor whose values are in a checkpoint."""

AnyTensor = AnyDense | Unstorable


def dense_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The stride of a contiguous tensor, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def bytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Number of bytes of a dense tensor."""
    return math.prod(shape) * BITS[dtype] // 8


def shown(name: str) -> str:
    """A name from a file in a form that may be printed: at most 200 characters, control characters escaped."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= 200 else f"{text[:200]}..."
