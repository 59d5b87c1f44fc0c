"""The bytes of tensors, read from their files piece by piece. Memory: one piece, and what a scattered tensor needs.

Bytes of a storage that has a checksum are compared with it in the same pass in which they are used.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rlinf_isaac.checkpoint.convert.tensors import (
    AnyDense,
    ComputedTensor,
    SplitTensor,
    Storage,
    StoredTensor,
    ZeroTensor,
)
from rlinf_isaac.checkpoint.header import BITS
from rlinf_isaac.ground.errors import WeightsError

if TYPE_CHECKING:
    import numpy as np

try:
    from isal.isal_zlib import crc32  # four times as fast as zlib's
except ImportError:
    from zlib import crc32

PIECE = 1 << 20  # fits into a core's cache, so that hashing and writing find it there
Buffer = bytes | memoryview


class SourceFiles:
    """Open files of a checkpoint; a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._open: dict[Path, int] = {}
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        self._checked: set[Storage] = set()
        self._piece = memoryview(bytearray(PIECE))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._maps.clear()
        self._stack.close()

    def pieces(self, tensor: AnyDense | ZeroTensor) -> Iterator[Buffer]:
        """The tensor's elements, dense and in order. A piece is valid until the next one is asked for.

        Raises:
            WeightsError: a checksum is not that of the bytes, or a file has become shorter or holds something else.
        """
        if isinstance(tensor, ZeroTensor):
            zeros = memoryview(bytearray(min(PIECE, tensor.nbytes)))
            yield from (zeros[: tensor.nbytes - begin] for begin in range(0, tensor.nbytes, PIECE))
        elif isinstance(tensor, ComputedTensor):
            yield from self._computed_pieces(tensor)
        elif isinstance(tensor, SplitTensor):
            yield from self._split_pieces(tensor)
        elif tensor.is_contiguous:
            yield from self._plain(tensor)
        else:
            yield from self._strided_pieces(tensor)

    def check(self, storage: Storage) -> int:
        """Compare a storage with its checksum, unless that was done; returns how many bytes were read for it."""
        if storage.crc32 is None or storage in self._checked:
            return 0
        for _ in self._read(storage, 0, storage.size):
            pass
        return storage.size

    def raise_if_changed(self) -> None:
        """Raise WeightsError where a file was written to since it was opened here."""
        for file, stamp in self._stamps.items():
            if _stamp(os.stat(file)) != stamp:
                cause = f"{file} was changed while it was read"
                raise WeightsError.of("source-changed", cause, "wait until it is complete, and convert it again")

    def _plain(self, tensor: StoredTensor) -> Iterator[memoryview]:
        if tensor.nbytes != tensor.storage.size:
            self.check(tensor.storage)
        yield from self._read(tensor.storage, tensor.offset, tensor.nbytes)

    def _read(self, storage: Storage, offset: int, size: int) -> Iterator[memoryview]:
        """Pieces of a storage; its checksum is compared if they are the whole of it."""
        whole = storage.crc32 is not None and size == storage.size and storage not in self._checked
        fd, done, checksum = self._descriptor(storage.file), 0, 0
        while done < size:
            piece = self._piece[: min(PIECE, size - done)]
            if os.preadv(fd, [piece], storage.begin + offset + done) != len(piece):
                cause = f"{storage.file} ends within {storage.record}"
                raise WeightsError.of("damaged-torch-file", cause, "copy it again, complete")
            done += len(piece)
            if whole:
                checksum = crc32(piece, checksum)
                if done == size:
                    self._compare(storage, checksum)
            yield piece

    def _compare(self, storage: Storage, checksum: int) -> None:
        if checksum != storage.crc32:
            cause = f"{storage.file}: the bytes of {storage.record} are not those that were saved (CRC-32 differs)"
            raise WeightsError.of("damaged-torch-file", cause, "copy it again from where it was made")
        self._checked.add(storage)

    def _strided_pieces(self, tensor: StoredTensor) -> Iterator[Buffer]:
        self.check(tensor.storage)
        import numpy as np

        for block in _blocks(self._array(tensor)):
            yield block.copy(order="C").reshape(-1).view(np.uint8).data

    def _split_pieces(self, tensor: SplitTensor) -> Iterator[Buffer]:
        """Rows of the pieces one after the other where each has whole rows, as FSDP saves; else put together first."""
        if all(piece.shape[1:] == tensor.shape[1:] for _, piece in tensor.pieces):
            for _, piece in sorted(tensor.pieces, key=lambda each: each[0]):
                yield from self.pieces(piece)
            return
        import numpy as np

        whole = np.empty(tensor.shape, _unsigned(tensor.dtype))
        for corner, piece in tensor.pieces:
            self.check(piece.storage)
            box = tuple(slice(low, low + size) for low, size in zip(corner, piece.shape, strict=True))
            whole[box] = self._array(piece)
        yield from _cut(whole)

    def _computed_pieces(self, tensor: ComputedTensor) -> Iterator[Buffer]:
        import numpy as np

        for file in tensor.files:
            if file not in self._stamps:
                self._stamps[file] = _stamp(os.stat(file))
        array = tensor.read()
        if array.shape != tensor.shape or array.itemsize * 8 != BITS[tensor.dtype]:
            cause = (
                f"{tensor.key[0]} is {array.dtype} {list(array.shape)} now, and was {tensor.dtype} {list(tensor.shape)}"
            )
            raise WeightsError.of("source-changed", cause, "wait until it is complete, and convert it again")
        yield from _cut(np.require(array, requirements=["C", "W"]))

    def _array(self, tensor: StoredTensor) -> np.ndarray:
        """The tensor as a view of its mapped file, of unsigned integers of its width."""
        import numpy as np

        file, dtype = tensor.storage.file, np.dtype(_unsigned(tensor.dtype))
        if 0 in tensor.shape:
            return np.empty(tensor.shape, dtype)
        if file not in self._maps:
            self._maps[file] = mmap.mmap(self._descriptor(file), 0, access=mmap.ACCESS_READ)
        strides = tuple(step * dtype.itemsize for step in tensor.stride)
        return np.ndarray(tensor.shape, dtype, self._maps[file], tensor.storage.begin + tensor.offset, strides)

    def _descriptor(self, file: Path) -> int:
        if file not in self._open:
            self._open[file] = fd = os.open(file, os.O_RDONLY)
            self._stack.callback(os.close, fd)
            self._stamps[file] = _stamp(os.fstat(fd))
        return self._open[file]


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _cut(array: np.ndarray) -> Iterator[Buffer]:
    """The bytes of a dense array, piece by piece."""
    flat = array.reshape(-1).view("u1").data
    for begin in range(0, len(flat), PIECE):
        yield flat[begin : begin + PIECE]


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of an array of about a piece's size, in order."""
    if array.nbytes <= PIECE or array.ndim == 0:
        yield array
        return
    row = array.nbytes // len(array)
    if row > PIECE:
        for inner in array:
            yield from _blocks(inner)
        return
    rows = PIECE // row
    for begin in range(0, len(array), rows):
        yield array[begin : begin + rows]


def _unsigned(dtype: str) -> str:
    return f"u{BITS[dtype] // 8}"
