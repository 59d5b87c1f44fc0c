from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlinf_isaac.engines.local.sft.packing import Packed, pack, unpack

DTYPES = [torch.uint8, torch.bool, torch.float32, torch.bfloat16, torch.int64]


@st.composite
def tensors(draw):
    """Of any layout: permuted, sliced, one row for many, without elements or dims."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 2**16, shape)
    tensor = torch.from_numpy(np.asarray(values)).to(draw(st.sampled_from(DTYPES)))
    tensor = tensor.permute(draw(st.permutations(range(len(shape)))))
    if shape:
        step = draw(st.integers(1, 3))
        tensor = tensor[draw(st.integers(0, 2)) :: step]
    return tensor.unsqueeze(0).expand(draw(st.integers(1, 5)), *tensor.shape) if draw(st.booleans()) else tensor


@given(values=st.dictionaries(st.text(max_size=3), st.one_of(tensors(), st.integers(), st.none()), max_size=5))
def test_values_and_strides_arrive(values):
    packed = pack(values)
    assert packed.memory.is_shared()
    found = unpack(Packed(packed.memory.clone(), packed.rest))
    assert found.keys() == values.keys()
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value)
            for size, *strides in zip(value.shape, found[name].stride(), value.stride(), strict=True):
                assert size < 2 or not value.numel() or strides[0] == strides[1]
        else:
            assert found[name] == value


def test_one_row_for_many_is_one_row_in_memory():
    row = torch.zeros(1, 3, 100, 100, dtype=torch.uint8)
    assert len(pack([row.expand(64, -1, -1, -1)]).memory) < 2 * row.numel()
