from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch
from huggingface_hub import save_torch_state_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from rlinf_isaac.checkpoint.header import INDEX_FILE, TensorInfo, parse_header, read_header, read_keys, weight_files
from rlinf_isaac.ground.errors import BundleError

DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
}

names = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 4), max_size=3)
state_dicts = st.dictionaries(names, st.tuples(st.sampled_from(list(DTYPES)), shapes), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 70) | st.floats(allow_nan=False) | st.sampled_from(["F32", "I4", ""]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(names, children, max_size=3),
    max_leaves=6,
)


def library_reads(data: bytes) -> dict[str, tuple[str, list[int]]] | None:
    """What the safetensors library makes of the bytes; None where it refuses them."""
    try:
        return {name: (entry["dtype"], entry["shape"]) for name, entry in safetensors.deserialize(data)}
    except safetensors.SafetensorError:
        return None


def ours_reads(data: bytes) -> dict[str, TensorInfo] | None:
    length = int.from_bytes(data[:8], "little")
    try:
        return parse_header(data[8 : 8 + length], len(data) - 8 - length)
    except ValueError:
        return None


@settings(deadline=None)
@given(state_dicts)
def test_every_file_of_the_library_reads_back(specs):
    tensors = {name: torch.zeros(shape).to(dtype) for name, (dtype, shape) in specs.items()}
    expected = {name: TensorInfo(DTYPES[dtype], tuple(shape)) for name, (dtype, shape) in specs.items()}
    assert ours_reads(save(tensors, {"format": "pt"})) == expected


@st.composite
def almost_headers(draw):
    """A valid file with one part of its header replaced by some JSON."""
    begin, end = draw(st.sampled_from([(0, 8), (0, 4), (4, 8), (8, 0)]))
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
        "b": {
            "dtype": draw(st.sampled_from(["F32", "BF16", "F4", "U8", "C64"])),
            "shape": [2],
            "data_offsets": [8, 16],
        },
    }
    target = draw(st.sampled_from(["__metadata__", "a", "b", "shape", "data_offsets", "dtype", "none"]))
    if target in header:
        header[target] = draw(json_values)
    elif target != "none":
        header["b"][target] = draw(json_values)
    if draw(st.booleans()) and isinstance(header["b"], dict):
        header["b"]["data_offsets"] = [begin, end]
    return json.dumps(header).encode()


@settings(deadline=None, max_examples=400)
@given(almost_headers(), st.integers(0, 24))
def test_whatever_we_accept_the_library_accepts_alike(header, data_bytes):
    header += b" " * (-len(header) % 8)
    data = len(header).to_bytes(8, "little") + header + bytes(data_bytes)
    ours = ours_reads(data)
    if ours is not None:
        library = library_reads(data)
        assert library is not None
        assert library.keys() == ours.keys()
        assert all(list(info.shape) == library[name][1] for name, info in ours.items())


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_one_exception(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("header") / "model.safetensors"
    file.write_bytes(data)
    if library_reads(data) is None:
        with pytest.raises(BundleError, match=r"model\.safetensors"):
            read_header(file)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}',
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}',
        b'{"a":{"dtype":"U9","shape":[1],"data_offsets":[0,1]}}',
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"path":"/etc"}}',
        b'{"__metadata__":{"step":1},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"[" * 100_000,
        b' {"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"{\xff}",
    ],
    ids=[
        "repeated",
        "bool size",
        "overlap",
        "wrong size",
        "dtype",
        "extra field",
        "metadata",
        "nested",
        "space",
        "utf8",
    ],
)
def test_malformed_headers(tmp_path: Path, header):
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(BundleError, match="not a whole safetensors file"):
        read_header(file)


def test_a_header_that_claims_the_whole_memory_is_refused_before_it_is_read(tmp_path: Path):
    file = tmp_path / "model.safetensors"
    file.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(BundleError, match="claims"):
        read_header(file)


def test_every_truncation_is_refused(tmp_path: Path):
    whole = save({"a": torch.arange(6.0), "b": torch.ones(2, 2, dtype=torch.bfloat16)})
    file = tmp_path / "model.safetensors"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(BundleError):
            read_header(file)


def test_shards_of_the_hub_library_read_as_one(tmp_path: Path):
    tensors = {f"layer.{i}.weight": torch.full((16, 16), float(i)) for i in range(6)}
    save_torch_state_dict(tensors, tmp_path, max_shard_size=2500)
    files = weight_files(tmp_path)
    assert len(files) > 1
    assert read_keys(tmp_path) == dict.fromkeys(tensors, TensorInfo("F32", (16, 16)))


class TestShards:
    @pytest.fixture
    def sharded(self, tmp_path: Path) -> Path:
        for number in (1, 2):
            save_file({f"w{number}": torch.ones(2)}, tmp_path / f"model-{number}.safetensors")
        self.index(tmp_path, {"w1": "model-1.safetensors", "w2": "model-2.safetensors"})
        return tmp_path

    @staticmethod
    def index(directory: Path, weight_map: object) -> None:
        (directory / INDEX_FILE).write_text(json.dumps({"metadata": {"total_size": 16}, "weight_map": weight_map}))

    def test_whole(self, sharded: Path):
        assert read_keys(sharded).keys() == {"w1", "w2"}

    def test_missing_shard(self, sharded: Path):
        (sharded / "model-2.safetensors").unlink()
        with pytest.raises(BundleError, match=r"model-2\.safetensors is missing"):
            read_keys(sharded)

    def test_stray_shard_that_a_globbing_loader_would_merge(self, sharded: Path):
        save_file({"w3": torch.ones(2)}, sharded / "model-3.safetensors")
        with pytest.raises(BundleError, match=r"model-3\.safetensors does not belong"):
            read_keys(sharded)

    def test_shard_of_another_checkpoint(self, sharded: Path):
        save_file({"w2": torch.ones(2), "w9": torch.ones(2)}, sharded / "model-2.safetensors")
        with pytest.raises(BundleError, match=r"model-2\.safetensors: its tensors are not the ones that"):
            read_keys(sharded)

    @pytest.mark.parametrize("name", ["../model-2.safetensors", "/etc/passwd", "model-2.pt", "", None, 3, ["a"]])
    def test_index_that_names_something_else(self, sharded: Path, name):
        self.index(sharded, {"w1": "model-1.safetensors", "w2": name})
        with pytest.raises(BundleError, match=r"index\.json is not a safetensors index"):
            read_keys(sharded)

    @pytest.mark.parametrize("weight_map", [{}, [], None, "w1"])
    def test_index_without_a_map(self, sharded: Path, weight_map):
        self.index(sharded, weight_map)
        with pytest.raises(BundleError, match="index"):
            read_keys(sharded)


@pytest.mark.parametrize(
    ("file", "hint"),
    [("params/manifest.ocdbt", "JAX"), ("actor/full_weights.pt", "RLinf"), ("a.txt", "one checkpoint")],
)
def test_a_directory_without_safetensors_is_recognised(tmp_path: Path, file, hint):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(BundleError, match=hint):
        read_keys(tmp_path)


def test_neither_header_nor_bundle_imports_torch():
    code = (
        "import sys, rlinf_isaac.checkpoint.bundle, rlinf_isaac.checkpoint.coverage, rlinf_isaac.stats.rates\n"
        "print(sorted({'torch', 'numpy', 'scipy', 'safetensors', 'mlflow'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
