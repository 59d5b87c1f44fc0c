"""Directories of torch.distributed.checkpoint as torch writes them, in one process and in parts."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

from rlinf_isaac.checkpoint.convert import prepare, run
from rlinf_isaac.checkpoint.convert.distributed import read_distributed
from rlinf_isaac.ground.digest import file_digest
from rlinf_isaac.ground.errors import InvalidJob, WeightsError

TENSORS = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "b.bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(3),
}


def save_dcp(directory: Path, state: dict) -> Path:
    with pytest.warns(UserWarning, match="single process"):
        dcp.save(state, checkpoint_id=directory)
    return directory


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """As RLinf's FSDP worker saves it: model, optimiser and counters in one."""
    optimiser = {"state": {name: {"exp_avg": tensor * 2} for name, tensor in TENSORS.items()}, "lr": 0.1}
    state = {"fsdp_checkpoint": {"model": TENSORS, "optimizers": optimiser, "rng": {"seed": Path("x")}}}
    return save_dcp(tmp_path / "dcp", state)


def edit_metadata(directory: Path, edit) -> None:
    metadata = dcp.FileSystemReader(directory).read_metadata()
    edit(metadata)
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))


def code_of(directory: Path) -> str:
    with pytest.raises(WeightsError) as error:
        read_distributed(directory)
    (problem,) = error.value.problems
    assert str(directory) in problem.cause
    return problem.code


def test_the_models_tensors_and_no_others(checkpoint, tmp_path):
    job = prepare(checkpoint, tmp_path / "out")
    assert job.plan.state_dict == "fsdp_checkpoint.model"
    assert len(job.plan.dropped) == 3
    run(job)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == TENSORS.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in TENSORS.items())


def test_a_bare_state_dict(tmp_path):
    run(prepare(save_dcp(tmp_path / "bare", dict(TENSORS)), tmp_path / "out"))
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == TENSORS.keys()


@pytest.mark.parametrize("axis", [0, 1])
def test_tensors_in_parts(tmp_path, axis):
    """Two saved tensors are declared to be the halves of one: rows as FSDP splits, columns as tensor parallelism."""
    whole = torch.arange(24.0).reshape(4, 6)
    halves = [half.clone() for half in whole.chunk(2, axis)]
    directory = save_dcp(tmp_path / "dcp", {"w": halves[0], "other": halves[1]})

    def join(metadata) -> None:
        corner = torch.Size([2, 0] if axis == 0 else [0, 3])
        place = next(metadata.storage_data.pop(index) for index in list(metadata.storage_data) if index.fqn == "other")
        metadata.storage_data[MetadataIndex("w", corner)] = place
        entry = metadata.state_dict_metadata["w"]
        entry.size = whole.size()
        entry.chunks.insert(0, ChunkStorageMetadata(corner, halves[1].size()))
        del metadata.state_dict_metadata["other"]

    edit_metadata(directory, join)
    (tensor,) = read_distributed(directory).tensors.values()
    assert tensor.shape == (4, 6)
    run(prepare(directory, tmp_path / "out"))
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["w"], whole)


@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (2, 1)])
def test_parts_that_overlap_or_leave_gaps(tmp_path, corner):
    directory = save_dcp(tmp_path / "dcp", {"w": torch.ones(2, 3), "other": torch.ones(2, 3)})

    def join(metadata) -> None:
        place = next(metadata.storage_data.pop(index) for index in list(metadata.storage_data) if index.fqn == "other")
        metadata.storage_data[MetadataIndex("w", torch.Size(corner))] = place
        entry = metadata.state_dict_metadata["w"]
        entry.size = torch.Size([4, 3])
        entry.chunks.append(ChunkStorageMetadata(torch.Size(corner), torch.Size([2, 3])))

    edit_metadata(directory, join)
    assert code_of(directory) == "damaged-dcp"


def test_a_malicious_metadata_is_refused_by_name_and_not_run(checkpoint, bomb):
    for content in (bomb, {"state_dict_metadata": [bomb]}):
        (checkpoint / ".metadata").write_bytes(pickle.dumps(content))
        with pytest.raises(WeightsError, match=r"wants to run .*mkdir") as error:
            read_distributed(checkpoint)
        assert error.value.problems[0].code == "unsafe-pickle"


@pytest.mark.parametrize("name", ["load", "hub.load", "serialization.load", "_C", "os"])
def test_functions_of_allowed_modules(checkpoint, name):
    """Protocol 4 resolves dotted names: ``torch`` + ``hub.load`` must not slip through."""
    parts = [b"\x80\x04", *(b"\x8c" + bytes([len(text)]) + text.encode() for text in ("torch", name)), b"\x93."]
    (checkpoint / ".metadata").write_bytes(b"".join(parts))
    assert code_of(checkpoint) == "unsafe-pickle"


@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x04K\x01.", b"\x80\x04]."])
def test_other_bytes_as_metadata(checkpoint, content):
    (checkpoint / ".metadata").write_bytes(content)
    assert code_of(checkpoint) == "damaged-dcp"


def test_data_outside_the_directory(checkpoint):
    def elsewhere(metadata) -> None:
        for place in metadata.storage_data.values():
            place.relative_path = "../secret"

    edit_metadata(checkpoint, elsewhere)
    assert code_of(checkpoint) == "damaged-dcp"


def test_a_tensor_with_a_part_missing(checkpoint):
    edit_metadata(
        checkpoint, lambda metadata: metadata.state_dict_metadata["fsdp_checkpoint.model.a.weight"].chunks.clear()
    )
    assert code_of(checkpoint) == "damaged-dcp"


def test_truncated_or_missing_data(checkpoint):
    (data,) = checkpoint.glob("*.distcp")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    assert code_of(checkpoint) in ("damaged-torch-file", "damaged-pickle")
    data.unlink()
    assert code_of(checkpoint) in ("damaged-dcp", "weights-unreadable")


def test_two_tensors_in_one_place_are_hashed_once(tmp_path):
    """As torch saves a tied weight of which it keeps one copy."""
    directory = save_dcp(tmp_path / "dcp", {"a": torch.arange(6.0), "b": torch.zeros(6)})

    def tie(metadata) -> None:
        places = {index.fqn: index for index in metadata.storage_data}
        metadata.storage_data[places["b"]] = metadata.storage_data[places["a"]]

    edit_metadata(directory, tie)
    record = run(prepare(directory, tmp_path / "out"))
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["b"], torch.arange(6.0))
    for name, entry in record["source"]["files"].items():
        assert entry["sha256"] == file_digest(directory / name)


def test_a_flipped_byte_in_the_data(checkpoint, tmp_path):
    (data,) = checkpoint.glob("*.distcp")
    content = bytearray(data.read_bytes())
    content[content.index(TENSORS["a.weight"].numpy().tobytes()) + 5] ^= 1
    data.write_bytes(content)
    with pytest.raises(InvalidJob) as error:
        run(prepare(checkpoint, tmp_path / "out"), verify=False)
    assert error.value.problems[0].code == "damaged-torch-file"
