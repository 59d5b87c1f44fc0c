from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from rlinf_isaac.checkpoint.header import TensorInfo
from rlinf_isaac.checkpoint.readers import read_tensors
from rlinf_isaac.checkpoint.sources import Weights
from rlinf_isaac.errors import BundleError

TENSORS = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "b.bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(3),
}
INFOS = {"a.weight": TensorInfo("F32", (2, 3)), "b.bias": TensorInfo("BF16", (2,)), "scalar": TensorInfo("I64", ())}


class Bomb:
    """Unpickling it creates a file: the sign that code of a checkpoint was run."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def save_dcp(directory: Path, state: dict) -> Weights:
    with pytest.warns(UserWarning, match="single process"):
        dcp.save(state, checkpoint_id=directory)
    return dcp_of(directory)


def dcp_of(directory: Path) -> Weights:
    return Weights("dcp", (directory / ".metadata", *sorted(directory.glob("*.distcp"))))


def refusal(weights: Weights, load: bool = False) -> str:
    with pytest.raises(BundleError) as error:
        read_tensors(weights).load(INFOS) if load else read_tensors(weights)
    (problem,) = error.value.problems
    assert str(weights.directory) in problem.cause
    return problem.code


def assert_holds(weights: Weights, names: dict[str, str] | None = None) -> None:
    """`weights` holds `TENSORS`, under other names where `names` says so."""
    stored = read_tensors(weights)
    names = names or {name: name for name in TENSORS}
    assert stored.infos == {names[name]: info for name, info in INFOS.items()}
    loaded = stored.load(stored.infos)
    assert all(torch.equal(loaded[names[name]], tensor) for name, tensor in TENSORS.items())
    assert all(loaded[names[name]].dtype == tensor.dtype for name, tensor in TENSORS.items())
    some = names["b.bias"]
    assert stored.load([some]).keys() == {some}


class TestSafetensors:
    def test_files(self, tmp_path):
        for name, tensor in TENSORS.items():
            save_file({name: tensor}, tmp_path / f"{name}.safetensors")
        assert_holds(Weights("safetensors", tuple(tmp_path.glob("*.safetensors"))))


class TestTorch:
    def test_a_state_dict(self, tmp_path):
        torch.save(TENSORS, tmp_path / "w.pt")
        assert_holds(Weights("torch", (tmp_path / "w.pt",)))

    def test_dicts_around_it_and_what_else_is_in_them(self, tmp_path):
        content = {"model": TENSORS, "step": 7, "notes": ["x", None], "config": {"lr": 0.1}}
        torch.save(content, tmp_path / "w.pt")
        weights = Weights("torch", (tmp_path / "w.pt",))
        assert_holds(weights, {name: f"model.{name}" for name in TENSORS})
        assert read_tensors(weights).left_out == 4

    def test_the_file_is_mapped_not_read(self, tmp_path):
        """A quarter of a gigabyte takes pages of the file, but no memory of its own."""
        torch.save({"big": torch.zeros(2**28, dtype=torch.uint8), **TENSORS}, tmp_path / "w.pt")
        before = anonymous_memory()
        stored = read_tensors(Weights("torch", (tmp_path / "w.pt",)))
        assert stored.load(["big"])["big"][::4096].sum() == 0
        assert anonymous_memory() - before < 64 << 20

    def test_a_malicious_pickle_is_refused_by_name_and_not_run(self, tmp_path):
        torch.save({"w": torch.ones(1), "x": Bomb(tmp_path / "pwned")}, tmp_path / "zip.pt")
        (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "pwned")))
        with pytest.raises(BundleError, match=r"zip\.pt wants to run \w+\.mkdir") as error:
            read_tensors(Weights("torch", (tmp_path / "zip.pt",)))
        assert error.value.problems[0].code == "unsafe-pickle"
        assert refusal(Weights("torch", (tmp_path / "raw.pt",))) == "damaged-pickle"
        assert not (tmp_path / "pwned").exists()

    def test_a_whole_module_is_refused_by_name(self, tmp_path):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
        with pytest.raises(BundleError, match=r"torch\.nn\.modules\.linear\.Linear"):
            read_tensors(Weights("torch", (tmp_path / "w.pt",)))

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02", b"not a checkpoint", b"\0" * 4096])
    def test_other_bytes(self, tmp_path, content):
        (tmp_path / "w.pt").write_bytes(content)
        assert refusal(Weights("torch", (tmp_path / "w.pt",))) == "damaged-pickle"

    def test_a_truncated_file(self, tmp_path):
        torch.save(TENSORS, tmp_path / "w.pt")
        whole = (tmp_path / "w.pt").read_bytes()
        for size in range(0, len(whole), 97):
            (tmp_path / "w.pt").write_bytes(whole[:size])
            assert refusal(Weights("torch", (tmp_path / "w.pt",))) == "damaged-pickle"

    @pytest.mark.parametrize("content", [{}, 3, {"step": 1}, [["x"]]])
    def test_no_tensors(self, tmp_path, content):
        torch.save(content, tmp_path / "w.pt")
        assert refusal(Weights("torch", (tmp_path / "w.pt",))) == "empty-weights"

    def test_a_quantised_type(self, tmp_path):
        torch.save({"w": torch.ones(2, dtype=torch.complex64)}, tmp_path / "w.pt")
        assert refusal(Weights("torch", (tmp_path / "w.pt",))) == "weights-dtype"

    def test_the_old_format_of_torch(self, tmp_path):
        torch.save(TENSORS, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
        assert refusal(Weights("torch", (tmp_path / "w.pt",))) == "damaged-pickle"


class TestDistributedCheckpoint:
    @pytest.fixture
    def weights(self, tmp_path) -> Weights:
        """As RLinf's FSDP worker saves it: model, optimiser and counters in one."""
        optimiser = {"state": {name: {"exp_avg": tensor * 2} for name, tensor in TENSORS.items()}, "lr": 0.1}
        state = {"fsdp_checkpoint": {"model": TENSORS, "optimizers": optimiser, "rng": {"seed": Path("x")}}}
        return save_dcp(tmp_path / "dcp", state)

    def test_the_models_tensors_and_no_others(self, weights):
        assert_holds(weights, {name: f"fsdp_checkpoint.model.{name}" for name in TENSORS})
        assert read_tensors(weights).left_out == 5

    def test_a_bare_state_dict(self, tmp_path):
        assert_holds(save_dcp(tmp_path / "bare", dict(TENSORS)))

    def test_a_malicious_metadata_is_refused_by_name_and_not_run(self, tmp_path, weights):
        for content in (Bomb(tmp_path / "pwned"), {"state_dict_metadata": [Bomb(tmp_path / "pwned")]}):
            (weights.directory / ".metadata").write_bytes(pickle.dumps(content))
            with pytest.raises(BundleError, match=r"wants to run .*mkdir") as error:
                read_tensors(weights)
            assert error.value.problems[0].code == "unsafe-pickle"
        assert not (tmp_path / "pwned").exists()

    @pytest.mark.parametrize("name", ["load", "hub.load", "serialization.load", "_C", "Tensor", "os"])
    def test_functions_of_allowed_modules(self, weights, name):
        """Protocol 4 resolves dotted names: ``torch`` + ``hub.load`` must not slip through."""
        parts = [b"\x80\x04", *(b"\x8c" + bytes([len(text)]) + text.encode() for text in ("torch", name)), b"\x93."]
        (weights.directory / ".metadata").write_bytes(b"".join(parts))
        assert refusal(weights) == "unsafe-pickle"

    @pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x04K\x01.", b"\x80\x04]."])
    def test_other_bytes_as_metadata(self, weights, content):
        (weights.directory / ".metadata").write_bytes(content)
        assert refusal(weights) in ("damaged-dcp", "damaged-pickle")

    def test_data_outside_the_directory(self, weights):
        metadata = dcp.FileSystemReader(weights.directory).read_metadata()
        for info in metadata.storage_data.values():
            info.relative_path = "../secret"
        (weights.directory / ".metadata").write_bytes(pickle.dumps(metadata))
        assert refusal(weights) == "damaged-dcp"

    def test_a_tensor_with_a_part_missing(self, weights):
        metadata = dcp.FileSystemReader(weights.directory).read_metadata()
        metadata.state_dict_metadata["fsdp_checkpoint.model.a.weight"].chunks.clear()
        (weights.directory / ".metadata").write_bytes(pickle.dumps(metadata))
        assert refusal(weights) == "damaged-dcp"

    def test_truncated_or_missing_data(self, tmp_path):
        weights = save_dcp(tmp_path / "bare", dict(TENSORS))
        data = weights.files[1]
        whole = data.read_bytes()
        data.write_bytes(whole[: len(whole) // 2])
        assert refusal(weights, load=True) == "damaged-dcp"
        data.unlink()
        assert refusal(weights, load=True) == "damaged-dcp"

    def test_a_malicious_pickle_in_the_data(self, tmp_path):
        """The entry of a tensor is replaced by a pickle of the same length."""
        weights = save_dcp(tmp_path / "bare", {"a.weight": TENSORS["a.weight"]})
        buffer = io.BytesIO()
        torch.save(Bomb(tmp_path / "pwned"), buffer)
        size = weights.files[1].stat().st_size
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.comment = b" " * max(0, size - buffer.tell() - 22)
        weights.files[1].write_bytes(buffer.getvalue()[:size].ljust(size, b" "))
        with pytest.raises(BundleError):
            read_tensors(weights).load(["a.weight"])
        assert not (tmp_path / "pwned").exists()


def anonymous_memory() -> int:
    """Bytes of this process's memory that are not pages of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) << 10
