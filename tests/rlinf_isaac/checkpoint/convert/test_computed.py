"""Tensors whose values are computed when they are asked for go through a conversion like any others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rlinf_isaac.checkpoint.convert.plan import Options, plan_conversion
from rlinf_isaac.checkpoint.convert.source import PIECE, Source
from rlinf_isaac.checkpoint.convert.tensors import ComputedTensor
from rlinf_isaac.checkpoint.convert.write import planned_digests, write_files
from rlinf_isaac.ground.errors import WeightsError

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
DTYPES = {"float32": "F32", "uint16": "BF16", "int64": "I64"}


def computed(name: str, values: np.ndarray, **others) -> ComputedTensor:
    return ComputedTensor(DTYPES[values.dtype.name], values.shape, (name,), lambda: values, **others)


def written(tmp_path: Path, tensors: dict[str, ComputedTensor], **options) -> dict[str, torch.Tensor]:
    """What safetensors reads of what is written; the digests are those of the plan."""
    plan = plan_conversion({(name,): each for name, each in tensors.items()}, Options(**options))
    assert write_files(plan.files, tmp_path) == planned_digests(plan.files)
    return load_file(tmp_path / "model.safetensors") | {"ties": plan.ties}


def test_values_arrive_whatever_their_layout_in_memory(tmp_path):
    large = np.arange(PIECE // 4 + 5, dtype=np.float32)
    frozen = VALUES.copy()
    frozen.flags.writeable = False
    arrays = {"a": VALUES, "transposed": VALUES.T, "large": large, "frozen": frozen, "empty": VALUES[:0]}
    arrays |= {"scalar": np.array(3, np.int64)}
    found = written(tmp_path, {name: computed(name, values) for name, values in arrays.items()})
    for name, values in arrays.items():
        assert np.array_equal(found[name].numpy(), values), name


def test_bfloat16_is_given_as_its_bits_and_can_be_cast(tmp_path):
    exact = torch.tensor([[1.5, -2.0], [3e38, 0.0]], dtype=torch.bfloat16)
    tensors = {"a": computed("a", exact.view(torch.uint16).numpy())}
    found = written(tmp_path, tensors)
    assert torch.equal(found["a"], exact)
    assert torch.equal(written(tmp_path, tensors, dtype="fp32")["a"], exact.float())


def test_one_of_two_with_the_same_key_is_stored(tmp_path):
    tensors = {"b": computed("x", VALUES), "a": computed("x", VALUES), "c": computed("y", VALUES)}
    found = written(tmp_path, tensors)
    assert found.keys() == {"a", "c", "ties"}
    assert found["ties"] == {"b": "a"}


def test_other_values_than_were_announced_are_a_change(tmp_path):
    tensor = ComputedTensor("F32", (2, 2), ("x",), lambda: VALUES)
    with Source() as source, pytest.raises(WeightsError, match=r"x is float32 \[2, 3\], but was F32 \[2, 2\] before"):
        source.tensor(tensor)


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path):
    (tmp_path / "chunk").write_text("1")
    tensor = computed("x", VALUES, files=(tmp_path / "chunk",))
    with Source() as source:
        source.tensor(tensor)
        source.raise_if_changed()
        (tmp_path / "chunk").write_text("12")
        with pytest.raises(WeightsError, match="was changed while it was read"):
            source.raise_if_changed()
