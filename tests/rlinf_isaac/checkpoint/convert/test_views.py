"""Parts of tensors, of every kind in which a checkpoint holds one, are what numpy says they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlinf_isaac.checkpoint.convert.source import SourceFiles
from rlinf_isaac.checkpoint.convert.tensors import (
    AnyDense,
    ComputedTensor,
    SplitTensor,
    Storage,
    StoredTensor,
    dense_stride,
)
from rlinf_isaac.checkpoint.convert.views import entry, narrow, transpose

VALUES = np.arange(2 * 6 * 5, dtype=np.float32).reshape(2, 6, 5)


def stored(tmp_path: Path, values: np.ndarray, name: str = "data") -> StoredTensor:
    (tmp_path / name).write_bytes(b"head" + values.tobytes())
    return StoredTensor("F32", values.shape, dense_stride(values.shape), Storage(tmp_path / name, 4, values.nbytes))


def split_by_rows(tmp_path: Path, values: np.ndarray) -> SplitTensor:
    """As FSDP shards a weight."""
    return SplitTensor(
        "F32", values.shape, tuple(((n, 0, 0), stored(tmp_path, values[n : n + 1], f"{n}")) for n in (1, 0))
    )


def split_by_boxes(tmp_path: Path, values: np.ndarray) -> SplitTensor:
    boxes = [(low, left) for low in (0, 4) for left in (0, 2)]
    pieces = []
    for low, left in boxes:
        box = values[:, low : low + 4, left : left + (2 if left == 0 else 3)]
        pieces.append(((0, low, left), stored(tmp_path, np.ascontiguousarray(box), f"{low}{left}")))
    return SplitTensor("F32", values.shape, tuple(pieces))


def computed(tmp_path: Path, values: np.ndarray) -> ComputedTensor:
    return ComputedTensor("F32", values.shape, ("values",), lambda: values)


def read(tensor: AnyDense) -> np.ndarray:
    with SourceFiles() as source:
        data = b"".join(bytes(piece) for piece in source.pieces(tensor))
    return np.frombuffer(data, np.float32).reshape(tensor.shape)


@pytest.mark.parametrize("make", [stored, split_by_rows, split_by_boxes, computed])
def test_parts(tmp_path, make):
    tensor = make(tmp_path, VALUES)
    for axis, size in enumerate(VALUES.shape):
        for begin, count in ((0, 1), (1, size - 1), (size - 1, 1), (0, size)):
            wanted = VALUES.take(range(begin, begin + count), axis)
            assert np.array_equal(read(narrow(tensor, axis, begin, count)), wanted), (axis, begin, count)
        assert np.array_equal(read(entry(tensor, axis, size - 1)), VALUES.take(size - 1, axis))
    for axes in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        assert np.array_equal(read(transpose(tensor, axes)), VALUES.transpose(axes))
    of_an_entry = transpose(entry(narrow(tensor, 1, 2, 3), 0, 1), (1, 0))
    assert np.array_equal(read(of_an_entry), VALUES[1, 2:5].T)
    assert read(narrow(tensor, 1, 3, 0)).size == 0


@pytest.mark.parametrize("make", [stored, computed])
def test_the_same_part_is_one_and_the_same_tensor(tmp_path, make):
    tensor = make(tmp_path, VALUES)
    assert entry(tensor, 0, 1) == entry(tensor, 0, 1)
    assert entry(tensor, 0, 1) != entry(tensor, 0, 0)
    assert hash(narrow(tensor, 1, 2, 3)) == hash(narrow(tensor, 1, 2, 3))
