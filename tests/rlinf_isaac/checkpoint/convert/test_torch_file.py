"""Files of torch.save, compared with torch's own reading of them."""

from __future__ import annotations

import os
import pickle
import random
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlinf_isaac.checkpoint.convert import prepare, run
from rlinf_isaac.checkpoint.convert.tensors import DTYPES, StoredTensor, Unstorable
from rlinf_isaac.checkpoint.convert.torch_file import read_torch_file
from rlinf_isaac.ground.errors import InvalidJob, WeightsError

LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def code_of(path) -> str:
    with pytest.raises(WeightsError) as error:
        read_torch_file(path)
    (problem,) = error.value.problems
    assert str(path) in problem.cause
    return problem.code


@LEGACY
def test_nested_dicts_lists_parameters_and_modules(save, legacy):
    model = torch.nn.Linear(3, 2)
    content = {
        "model": model.state_dict(),
        "list": [torch.ones(1), {"x": torch.nn.Parameter(torch.ones(2))}],
        "step": 7,
    }
    found = read_torch_file(save(content, legacy))
    assert [".".join(keys) for keys in found.tensors] == ["model.weight", "model.bias", "list.0", "list.1.x"]
    assert [tensor.shape for tensor in found.tensors.values()] == [(2, 3), (2,), (1,), (2,)]
    assert found.others == 1


@LEGACY
def test_storages_and_strides(save, legacy):
    base = torch.arange(24.0).reshape(4, 6)
    content = {"base": base, "row": base[1], "column": base[:, 2], "t": base.t(), "same": base, "one": base[2, 3]}
    tensors = {keys[0]: tensor for keys, tensor in read_torch_file(save(content, legacy)).tensors.items()}
    assert len({tensor.storage for tensor in tensors.values()}) == 1
    assert tensors["same"] == tensors["base"]
    assert (tensors["column"].offset, tensors["column"].stride) == (8, (6,))
    assert (tensors["one"].offset, tensors["one"].shape) == (60, ())
    contiguous = {name for name, tensor in tensors.items() if tensor.is_contiguous}
    assert contiguous == {name for name, tensor in content.items() if tensor.is_contiguous()}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.booleans())
def test_any_view_lies_where_torch_says(tmp_path, data, legacy):
    dtype = getattr(torch, data.draw(st.sampled_from(sorted(DTYPES))))
    numel = data.draw(st.integers(0, 40))
    base = torch.zeros(numel * dtype.itemsize, dtype=torch.uint8).view(dtype)
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
    stride = [data.draw(st.integers(0, 5)) for _ in shape]
    span = 0 if 0 in shape else 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if span > numel:
        return
    offset = data.draw(st.integers(0, numel - span))
    view = base.as_strided(shape, stride, offset)
    torch.save([base, view], tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    first, second = read_torch_file(tmp_path / "w.pt").tensors.values()
    assert (second.shape, second.stride) == (tuple(view.shape), view.stride())
    assert second.offset == view.storage_offset() * dtype.itemsize
    assert second.dtype == first.dtype == DTYPES[str(dtype).removeprefix("torch.")]
    assert second.storage == first.storage
    assert second.is_contiguous == view.is_contiguous()


KINDS = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "per channel": lambda: torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8),
    "meta": lambda: torch.empty(2, device="meta"),
    "complex128": lambda: torch.ones(2, dtype=torch.complex128),
    "conjugate": lambda: torch.ones(2, dtype=torch.complex64).conj(),
}


@LEGACY
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_safetensors_cannot_hold_is_refused_by_name_unless_left_out(save, refusal, convert, kind, legacy):
    path = save({"layer.odd": KINDS[kind](), "w": torch.ones(2)}, legacy)
    (odd, plain) = read_torch_file(path).tensors.values()
    assert isinstance(odd, Unstorable)
    assert isinstance(plain, StoredTensor)
    assert refusal(path) == "not-a-dense-tensor"
    convert(path, verify=False, exclude=("*odd",))


class TestDTensor:
    @pytest.fixture
    def mesh(self):
        from torch.distributed.tensor import init_device_mesh

        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        yield init_device_mesh("cpu", (1,))
        torch.distributed.destroy_process_group()

    def test_a_whole_one(self, save, convert, mesh):
        from safetensors.torch import load_file
        from torch.distributed.tensor import Shard, distribute_tensor

        values = torch.arange(12.0).reshape(4, 3)
        path = save({"w": distribute_tensor(values, mesh, [Shard(0)])})
        assert torch.equal(load_file(convert(path, verify=False) / "model.safetensors")["w"], values)

    def test_a_part(self, save, refusal, mesh):
        from torch.distributed.tensor import DTensor, Shard

        part = DTensor.from_local(torch.ones(2, 3), mesh, [Shard(0)], run_check=False, shape=(4, 3), stride=(3, 1))
        assert refusal(save({"w": part})) == "not-a-dense-tensor"


class TestMalice:
    @LEGACY
    def test_nothing_is_run_and_the_wish_is_named(self, save, bomb, legacy):
        path = save({"w": torch.ones(1), "x": bomb}, legacy)
        with pytest.raises(WeightsError, match=r"wants to run posix\.mkdir") as error:
            read_torch_file(path)
        assert error.value.problems[0].code == "unsafe-pickle"

    @pytest.mark.parametrize("protocol", range(6))
    def test_raw_pickles(self, tmp_path, bomb, protocol):
        (tmp_path / "w.pt").write_bytes(pickle.dumps(bomb, protocol))
        assert code_of(tmp_path / "w.pt") in ("unsafe-pickle", "damaged-pickle")

    def test_a_whole_module(self, save):
        with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear"):
            read_torch_file(save(torch.nn.Linear(2, 2)))

    def test_torchscript(self, tmp_path):
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
        assert code_of(tmp_path / "w.pt") in ("torchscript-file", "foreign-archive")

    @pytest.mark.parametrize(
        "program",
        [
            b"\x80\x02c__builtin__\neval\n(X\x01\x00\x00\x001tR.",
            b"\x80\x04\x8c\x05torch\x8c\x08hub.load\x93.",
            b"\x80\x04\x8c\x05torch\x8c\x0bfloat.__new\x93.",
            b"\x80\x02ctorch.storage\n_load_from_bytes\n.",
            b"\x80\x02ctorch._utils\n_import_dotted_name\n.",
            b"(cos\nsystem\nS'x'\no.",
            b"\x80\x02(i__builtin__\nexec\n.",
            b"\x80\x02}(K\x01K\x02u(R.",
            b"\x80\x02ccollections\nOrderedDict\nccollections\nOrderedDict\n}R.",
            b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00.",
            b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\x00\x00.",
            b"\x80\x02\x82\x01.",
            b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
            b"\x80\x02ctorch.storage\nUntypedStorage\nJ\xff\xff\xff\x7f\x85R.",
        ],
    )
    def test_programs(self, tmp_path, program):
        (tmp_path / "w.pt").write_bytes(program)
        assert code_of(tmp_path / "w.pt") in ("unsafe-pickle", "damaged-pickle")

    def test_lists_within_lists_end(self, save):
        value = [torch.ones(1)]
        for _ in range(40):
            value = [value, value]
        assert code_of(save(value)) == "damaged-pickle"

    def test_a_circle(self, save):
        value = [torch.ones(1)]
        value.append(value)
        assert code_of(save(value)) == "damaged-pickle"

    @pytest.mark.parametrize("shape", [(2**40,), (3, 2), (-1,), (2**70,)])
    def test_a_tensor_that_reaches_beyond_its_storage(self, save, tmp_path, shape):
        class Liar:
            def __reduce__(self):
                storage = torch.zeros(4)._typed_storage()
                return torch._utils._rebuild_tensor_v2, (storage, 0, shape, (1,) * len(shape), False, {})

        path = save({"w": Liar()})
        if shape == (3, 2):  # with stride (1, 1) it does fit
            assert read_torch_file(path).tensors["w",].span == (0, 16)
        else:
            assert code_of(path) == "damaged-torch-file"


@LEGACY
def test_truncated(save, legacy):
    path = save({"a": torch.ones(40), "b": torch.ones(2)}, legacy)
    whole = path.read_bytes()
    for size in range(0, len(whole), 41):
        path.write_bytes(whole[:size])
        assert code_of(path) in ("damaged-torch-file", "damaged-pickle")
    path.write_bytes(whole + b"\0")
    assert code_of(path) in ("damaged-torch-file", "damaged-pickle")


@pytest.mark.parametrize("seed", range(2))
def test_two_hundred_flips_two_hundred_found(tmp_path, seed):
    """Anywhere in the file: weights, of tensors that share a storage or use none of it, headers, padding, directory."""
    chooser = random.Random(seed)
    base = torch.randn(50, 6)
    content = {
        "model": {"a": torch.randn(300), "view": base[3:7], "t": base.t(), "scalar": torch.tensor(2)},
        "optimizer": {"state": {"0": torch.randn(200)}},
        "unused": torch.zeros(0),
        "epoch": 3,
    }
    path = tmp_path / "w.pt"
    torch.save(content, path)
    whole = path.read_bytes()
    run(prepare(path, tmp_path / "fine"), verify=False)
    for _ in range(200):
        position, bit = chooser.randrange(len(whole)), chooser.randrange(8)
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(InvalidJob):
            run(prepare(path, tmp_path / "out"), verify=False, hash_source=False)
        assert not (tmp_path / "out").exists()


def test_torch_itself_does_not_notice(save):
    path = save({"w": torch.zeros(1000)})
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["w"].count_nonzero() == 1
    with pytest.raises(WeightsError, match=r"data/0 are not those that were saved"):
        run(prepare(path, path.parent / "out"), verify=False)


def test_archives_that_others_made(save, tmp_path):
    path = save({"w": torch.ones(3), "b": torch.ones(2)})
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}

    def rewrite(**options) -> str:
        os.unlink(path)
        with zipfile.ZipFile(path, "w", **options) as archive:
            for name, data in records.items():
                archive.writestr(name, data)
        return path

    assert len(read_torch_file(rewrite()).tensors) == 2  # stored, not compressed
    assert code_of(rewrite(compression=zipfile.ZIP_DEFLATED)) == "foreign-archive"
    records["weights/byteorder"] = b"big"
    assert code_of(rewrite()) == "big-endian"
