"""Finds the tensors of a checkpoint of any format. Their values are not read, and torch is not imported."""

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
    """The content of a checkpoint.

    Attributes:
        weights: the files of the checkpoint.
        tensors: the keys that lead to a tensor (of its containers and its own) -> the tensor, in the order of the file.
        others: number of entries that are not tensors (numbers, texts).
        records: the runs of bytes that have a checksum, including those that no tensor uses.
        ties: name that is not stored -> name of the tensor that it shares, as a safetensors file records it.
        layout: name of the file's layout if its names were replaced by OpenPI's, else empty.
        notes: changes that were made to the values, one sentence each.
        parts: places of the parts of each tensor of a distributed checkpoint (`TorchFile.parts`).
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
    """The content of weights of any format.

    Raises:
        BundleError: a safetensors file is damaged, or a JAX checkpoint incomplete.
        WeightsError: another file is damaged or wants to run code, or there are no tensors.
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
                raise WeightsError.of("duplicate-names", cause, "name the file that you mean")
            storage = Storage(file, name, bytes_of(*info))
            tensors[name,] = StoredTensor(info.dtype, info.shape, dense_stride(info.shape), storage, keys=(name,))
        # huggingface_hub and safetensors' save_model record tied names like this: {"lm_head.weight": "embed.weight"}.
        ties |= {name: other for name, other in layout.metadata.items() if other in layout.tensors}
    return TorchFile(tensors, 0, ()), {name: other for name, other in ties.items() if (name,) not in tensors}
