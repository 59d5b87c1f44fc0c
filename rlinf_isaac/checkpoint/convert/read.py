"""The tensors of a checkpoint of any format, without their values and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlinf_isaac.checkpoint.convert.archive import Record
from rlinf_isaac.checkpoint.convert.distributed import read_distributed
from rlinf_isaac.checkpoint.convert.tensors import AnyTensor, Keys, Storage, StoredTensor, bytes_of, dense_stride
from rlinf_isaac.checkpoint.convert.torch_file import Part, TorchFile, read_torch_file
from rlinf_isaac.checkpoint.find_weights import Weights
from rlinf_isaac.checkpoint.header import read_layout
from rlinf_isaac.ground.errors import WeightsError


@dataclass(frozen=True)
class Stored:
    """What a checkpoint holds.

    Attributes:
        weights: where it lies.
        tensors: keys of the containers around a tensor and its own -> tensor, in the order of the file.
        others: number of entries that are no tensors (numbers, texts).
        records: the runs of bytes that have a checksum, whether tensors use them or not.
        ties: name that is not stored -> name of the tensor it shares, as a safetensors file records it.
        parts: how the tensors of a distributed checkpoint lie in its files (`TorchFile.parts`).
        layout: whose names the file has, where the tensors here have OpenPI's instead (`checkpoint.layouts`).
        notes: what was done to the values, one sentence each.
    """

    weights: Weights
    tensors: dict[Keys, AnyTensor]
    others: int
    records: tuple[Record, ...]
    ties: dict[str, str]
    layout: str = ""
    notes: tuple[str, ...] = ()
    parts: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)


def read_stored(weights: Weights) -> Stored:
    """Open weights of any format.

    Raises:
        BundleError: a safetensors file is damaged, or a JAX checkpoint incomplete.
        WeightsError: another file is damaged, wants to run code, or there are no tensors.
    """
    if weights.format == "jax":
        return _read_jax(weights)
    if weights.format == "safetensors":
        found, ties = _read_safetensors(weights.files)
    else:
        ties = {}
        torch_file = weights.format == "torch"
        found = read_torch_file(weights.files[0]) if torch_file else read_distributed(weights.directory)
    if not found.tensors:
        cause = f"{weights.files[0]} holds no tensors"
        raise WeightsError.of("empty-weights", cause, "name the file that holds the model's state dict")
    if () in found.tensors:
        cause = f"{weights.files[0]} holds one tensor without a name, not a state dict"
        cure = "where it was made, save it under a name: torch.save({'NAME': tensor}, ...)"
        raise WeightsError.of("unnamed-tensor", cause, cure)
    return Stored(weights, found.tensors, found.others, found.records, ties, parts=found.parts)


def _read_jax(weights: Weights) -> Stored:
    from rlinf_isaac.checkpoint.convert import openpi_jax
    from rlinf_isaac.checkpoint.convert.orbax import OrbaxStore

    store = OrbaxStore(weights.files)
    if not store.arrays:
        cause = f"{weights.files[0]} lists no arrays"
        raise WeightsError.of("empty-weights", cause, "name the params/ of a model")
    tensors: dict[Keys, AnyTensor] = dict(openpi_jax.to_openpi(store.arrays))
    merged = openpi_jax.merged_adapters(store.arrays)
    note = f"{merged} LoRA adapters are merged into their weights, with OpenPI's scale of 1"
    return Stored(weights, tensors, store.others, (), {}, openpi_jax.NAME, (note,) if merged else ())


def _read_safetensors(files: tuple[Path, ...]) -> tuple[TorchFile, dict[str, str]]:
    tensors: dict[Keys, AnyTensor] = {}
    ties: dict[str, str] = {}
    for file in files:
        layout = read_layout(file)
        for name, info in layout.tensors.items():
            if (name,) in tensors:
                cause = f"{file} and another file both hold {name}"
                raise WeightsError.of("duplicate-names", cause, "name the one file that is meant")
            storage = Storage(file, name, bytes_of(*info))
            tensors[name,] = StoredTensor(info.dtype, info.shape, dense_stride(info.shape), storage, keys=(name,))
        # Tied names, as huggingface_hub and safetensors' save_model note them: {"lm_head.weight": "embed.weight"}.
        ties |= {name: other for name, other in layout.metadata.items() if other in layout.tensors}
    return TorchFile(tensors, 0, ()), {name: other for name, other in ties.items() if (name,) not in tensors}
