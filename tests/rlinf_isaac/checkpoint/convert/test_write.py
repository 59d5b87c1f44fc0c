"""The bytes that are written, compared with safetensors' and huggingface_hub's own."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from huggingface_hub import load_state_dict_from_file, save_torch_state_dict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file, save_model

from rlinf_isaac.checkpoint.convert import Options, prepare, run
from rlinf_isaac.checkpoint.convert.tensors import DTYPES
from rlinf_isaac.checkpoint.header import weight_files

PT = {"format": "pt"}
TYPED = set(torch.storage._dtype_to_storage_type_map())  # others torch cannot read in the format in which it saved them
ORDINARY = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def load_shards(directory: Path) -> dict[str, torch.Tensor]:
    """As transformers does: the index says which file has which tensor."""
    index = json.loads((directory / "model.safetensors.index.json").read_bytes())
    tensors = {}
    for name, file in index["weight_map"].items():
        with safe_open(directory / file, framework="pt") as shard:
            assert shard.metadata()["format"] == "pt"
            tensors[name] = shard.get_tensor(name)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    return tensors


@st.composite
def state_dicts(draw):
    """Tensors of every dtype, shape and stride; some are views of each other's storage."""
    tensors = {}
    for name in draw(st.lists(st.text(min_size=1, max_size=8).filter(storable), min_size=1, max_size=6, unique=True)):
        dtype = getattr(torch, draw(st.sampled_from(sorted(DTYPES))))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        numel = torch.Size(shape).numel()
        raw = torch.frombuffer(bytearray(draw(st.binary(min_size=64 * 8, max_size=64 * 8))), dtype=torch.uint8)
        values = (raw.bool() if dtype is torch.bool else raw.view(dtype))[:numel].reshape(shape)
        tensors[name] = values.transpose(0, -1) if shape and draw(st.booleans()) else values
    return tensors


def storable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name not in ("__metadata__", "format") and not name.startswith("module.")


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state_dicts(), st.booleans())
def test_a_file_is_byte_for_byte_that_of_save_file(tmp_path, state_dict, legacy):
    legacy = legacy and all(tensor.dtype in TYPED for tensor in state_dict.values())
    torch.save(state_dict, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    run(prepare(tmp_path / "w.pt", tmp_path / "out", Options(state_dict_key="."), overwrite=True), verify=False)
    save_file({n: t.contiguous().clone() for n, t in state_dict.items()}, tmp_path / "expected", metadata=PT)
    written = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert written == (tmp_path / "expected").read_bytes()
    loaded = load_file(tmp_path / "out" / "model.safetensors")
    assert {n: (bits(t), t.dtype, t.shape) for n, t in loaded.items()} == {
        n: (bits(t), t.dtype, t.shape) for n, t in state_dict.items()
    }


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(ORDINARY), st.sampled_from(["bf16", "fp16", "fp32"]), st.integers(0, 10_000), st.booleans())
def test_casts_are_those_of_torch(tmp_path, dtype, to, seed, transposed):
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(7, 5, generator=generator, dtype=torch.float64) * 10 ** (seed % 5)).to(dtype)
    content = {"w": values.t() if transposed else values, "n": torch.tensor(2)}
    torch.save(content, tmp_path / "w.pt")
    run(prepare(tmp_path / "w.pt", tmp_path / "out", Options(dtype=to), overwrite=True))
    target = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[to]
    expected = {"w": content["w"].to(target).contiguous(), "n": content["n"]}
    save_file(expected, tmp_path / "expected", metadata=PT)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "expected").read_bytes()


def test_large_casts_and_scattered_tensors_of_many_pieces(save, convert, tmp_path):
    big = torch.randn(3000, 1100)
    path = save({"a": big, "t": big.t(), "every other": big[::2, ::3], "nan": torch.full((2**19 + 3,), float("nan"))})
    written = load_file(convert(path, dtype="bf16") / "model.safetensors")
    assert torch.equal(written["a"], big.bfloat16())
    assert torch.equal(written["t"], big.t().bfloat16())
    assert torch.equal(written["every other"], big[::2, ::3].bfloat16())
    assert written["nan"].isnan().all()


def test_a_cast_that_would_make_infinities(save, refusal, convert):
    path = save({"w": torch.tensor([1e30, float("inf"), float("nan")]), "v": torch.ones(2)})
    assert refusal(path, dtype="fp16") == "cast-overflow"
    written = load_file(convert(path, dtype="fp16", keep_dtype=("w",)) / "model.safetensors")
    assert (written["w"].dtype, written["v"].dtype) == (torch.float32, torch.float16)
    assert load_file(convert(path, dtype="bf16") / "model.safetensors")["w"][0] == torch.tensor(1e30).bfloat16()


STATE = {f"layers.{number}.weight": torch.randn(10, number + 1) for number in range(12)}


class TestShards:
    def test_they_are_those_of_huggingface_hub_and_load_everywhere(self, save, convert, tmp_path):
        out = convert(save(STATE), max_shard_size=1000)
        (tmp_path / "hub").mkdir()
        save_torch_state_dict(STATE, tmp_path / "hub", max_shard_size=1000)
        names = sorted(path.name for path in (tmp_path / "hub").iterdir())
        assert len(names) > 3
        for name in names:
            ours, theirs = (out / name).read_bytes(), (tmp_path / "hub" / name).read_bytes()
            assert ours == theirs if name.endswith(".safetensors") else json.loads(ours) == json.loads(theirs)
        loaded = load_shards(out)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in STATE.items())
        one = load_state_dict_from_file(out / names[0])
        assert all(torch.equal(STATE[name], tensor) for name, tensor in one.items())
        assert [path.name for path in weight_files(out)] == [name for name in names if name.endswith("safetensors")]

    def test_there_and_back(self, save, tmp_path):
        """safetensors re-sharded: one file, shards, one file again."""
        places = [save(STATE), *(tmp_path / name for name in ("one", "many", "again"))]
        for source, output, size in zip(places, places[1:], (None, 900, None), strict=False):
            run(prepare(source, output, Options(max_shard_size=size)))
        assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
        one, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "again"))
        assert one == again


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(7, 3)
        self.head = torch.nn.Linear(3, 7, bias=False)
        self.head.weight = self.embed.weight
        self.norm = torch.nn.LayerNorm(3)


class TestTies:
    def test_one_is_stored_and_loading_ties_them_again(self, save, convert, tmp_path):
        model = Tied()
        out = convert(save(model.state_dict()))
        with safe_open(out / "model.safetensors", framework="pt") as file:
            assert file.metadata() == {"format": "pt", "head.weight": "embed.weight"}
            assert set(file.keys()) == {"embed.weight", "norm.weight", "norm.bias"}
        loaded = Tied()
        assert load_model(loaded, out / "model.safetensors") == (set(), [])
        assert torch.equal(loaded.head.weight, model.embed.weight)
        assert loaded.head.weight is loaded.embed.weight
        save_model(model, str(tmp_path / "theirs"))
        data = [path.read_bytes() for path in (out / "model.safetensors", tmp_path / "theirs")]
        ends = [8 + int.from_bytes(each[:8], "little") for each in data]
        assert data[0][ends[0] :] == data[1][ends[1] :]
        again = prepare(out, tmp_path / "again", Options(max_shard_size=100))
        assert again.plan.ties == {"head.weight": "embed.weight"}

    def test_views_of_one_storage_are_written_apart_and_reported(self, save, convert):
        fused = torch.randn(6, 4)
        parts = {"q": fused[:2], "k": fused[2:4], "qk": fused[:4], "v": fused[4:].t()}
        out = convert(save(parts))
        assert json.loads((out / "conversion.json").read_bytes())["plan"]["overlapping"] == [["q", "qk", "k"]]
        loaded = load_file(out / "model.safetensors")
        assert all(torch.equal(loaded[name], tensor) for name, tensor in parts.items())

    def test_a_slice_of_a_large_storage_takes_what_it_needs(self, save, convert):
        out = convert(save({"slice": torch.zeros(1_000_000)[10:12]}))
        assert (out / "model.safetensors").stat().st_size < 1000


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_very_many_tiny_tensors(save, convert, count):
    bank = torch.arange(count, dtype=torch.int32)
    state = {f"block.{number}.scale": bank[number] for number in range(count)}
    out = convert(save(state), verify=False)
    written = load_file(out / "model.safetensors")
    assert len(written) == count
    assert written["block.4321.scale"] == 4321
    assert written[f"block.{count - 1}.scale"] == count - 1


def test_memory_does_not_grow_with_the_file(tmp_path):
    """A quarter of a gigabyte, cast and not: pieces are held, not tensors."""
    torch.save({f"w{n}": torch.ones(2**24) for n in range(4)}, tmp_path / "w.pt")
    for options in (Options(), Options(dtype="bf16", max_shard_size=2**26)):
        job = prepare(tmp_path / "w.pt", tmp_path / "out", options, overwrite=True)
        before, peak = anonymous_memory(), []
        run(job, progress=lambda _, seen=peak: seen.append(anonymous_memory()), verify=options.dtype == "keep")
        assert len(peak) > 4
        assert max(peak) - before < 48 << 20


def test_the_record_says_what_was_read_and_written(save, convert):
    path = save({"model": {"module.w": torch.ones(3), "module.b": torch.ones(1)}, "step": 3})
    record = json.loads((convert(path, exclude=("b",)) / "conversion.json").read_bytes())
    assert record["source"]["files"] == {
        "weights.pt": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
    }
    out = path.parent / "out"
    assert record["output"] == {
        "model.safetensors": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    }
    assert record["plan"]["stripped"] == ["module"]
    assert record["plan"]["dropped"] == ["model.module.b"]
    assert record["plan"]["state_dict"] == "model"
    assert record["options"]["exclude"] == ["b"]
    assert record["verified"] is True
    first = (out / "conversion.json").read_bytes()
    assert (convert(path, exclude=("b",)) / "conversion.json").read_bytes() == first


def anonymous_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) << 10


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(save, convert, umask):
    before = os.umask(umask)
    try:
        out = convert(save({"w": torch.ones(1)}))
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == 0o777 & ~umask
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o666 & ~umask}
