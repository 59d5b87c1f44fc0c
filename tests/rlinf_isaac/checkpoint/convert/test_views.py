"""Parts of tensors, of every kind in which a checkpoint holds one, are what numpy says they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from rlinf_isaac.checkpoint.convert.read import Stored, read_stored
from rlinf_isaac.checkpoint.convert.source import Source
from rlinf_isaac.checkpoint.convert.tensors import AnyDense, ComputedTensor, StoredTensor
from rlinf_isaac.checkpoint.convert.views import entry, narrow, transpose
from rlinf_isaac.checkpoint.find_weights import find_weights

VALUES = np.arange(2 * 6 * 5, dtype=np.float32).reshape(2, 6, 5)


def stored(tmp_path: Path, values: np.ndarray) -> AnyDense:
    """As torch saves a tensor that is a part of a larger storage."""
    whole = torch.zeros(values.size + 9)
    whole[4 : 4 + values.size] = torch.from_numpy(values).reshape(-1)
    torch.save({"w": whole[4 : 4 + values.size].view(values.shape)}, tmp_path / "w.pt")
    return found(tmp_path / "w.pt")


def in_safetensors(tmp_path: Path, values: np.ndarray) -> AnyDense:
    save_file({"a": torch.ones(3), "w": torch.from_numpy(values)}, tmp_path / "w.safetensors")
    return found(tmp_path / "w.safetensors")


def distributed(tmp_path: Path, values: np.ndarray) -> AnyDense:
    with pytest.warns(UserWarning, match="single process"):
        dcp.save({"w": torch.from_numpy(values)}, checkpoint_id=tmp_path / "dcp")
    return found(tmp_path / "dcp")


def found(path: Path) -> AnyDense:
    stored = read_stored(find_weights(path)[0])
    tensor = stored.tensors["w",]
    assert isinstance(tensor, StoredTensor)
    STORED[tensor.storage.file] = stored
    return tensor


STORED: dict[Path, Stored] = {}
"""The checkpoint of a tensor, by the file in which that lies."""


def computed(tmp_path: Path, values: np.ndarray) -> ComputedTensor:
    return ComputedTensor("F32", values.shape, ("values",), lambda: values)


def read(tensor: AnyDense) -> np.ndarray:
    with Source(STORED.get(tensor.storage.file) if isinstance(tensor, StoredTensor) else None) as source:
        return source.tensor(tensor).numpy().copy()


@pytest.mark.parametrize("make", [stored, in_safetensors, distributed, computed])
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
