from __future__ import annotations

import pytest
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.checkpoint.convert.layout import file_names, index, parse_size, split
from rlinf_isaac.ground.errors import InvalidJob


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 100))
def test_shards_are_those_of_huggingface_hub(sizes, limit):
    """Of tensors that are not empty: it takes those for one and the same."""
    state_dict = {f"t{number}": torch.zeros(size, dtype=torch.uint8) for number, size in enumerate(sizes)}
    expected = split_torch_state_dict_into_shards(
        state_dict, max_shard_size=limit, filename_pattern="model{suffix}.safetensors"
    )
    shards = split({name: tensor.nbytes for name, tensor in state_dict.items()}, limit)
    # Where the first tensor is larger than a shard, huggingface_hub counts an empty shard as well.
    assert shards == [names for names in expected.filename_to_tensors.values() if names]
    if len(shards) == len(expected.filename_to_tensors):
        assert file_names(len(shards)) == list(expected.filename_to_tensors)


def test_the_index():
    content = index([("a.safetensors", ["x"]), ("b.safetensors", ["y"])], 7)
    assert content == (
        b'{\n  "metadata": {\n    "total_size": 7\n  },\n  "weight_map": {\n'
        b'    "x": "a.safetensors",\n    "y": "b.safetensors"\n  }\n}'
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("512MiB", 2**29), ("1.5 kb", 1500), ("12", 12), ("7B", 7), ("2T", 2 * 10**12)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "5XB", "0", "1e9", "5 G B"])
def test_what_is_no_size(text):
    with pytest.raises(InvalidJob) as error:
        parse_size(text)
    assert error.value.problems[0].code == "bad-size"
