"""Names, dtypes and shapes of the tensors of a checkpoint, read without torch and without touching the weights.

A safetensors file is: 8 bytes little-endian length N; N bytes of JSON ``{name: {"dtype", "shape", "data_offsets":
[begin, end]}}`` with an optional ``"__metadata__"`` (str -> str); then the data, every byte of which belongs to exactly
one tensor. https://github.com/huggingface/safetensors#format

A sharded checkpoint is several such files plus ``model.safetensors.index.json``:
``{"metadata": {"total_size": N}, "weight_map": {tensor name: file name}}``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rlinf_isaac.ground.errors import BundleError
from rlinf_isaac.ground.reading import open_regular, parse_json, read_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# The limit of the safetensors library itself. pi0's header is 0.1 MB.
MAX_HEADER_BYTES = 100_000_000

BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


class TensorInfo(NamedTuple):
    """dtype in safetensors' spelling (``F32``, ``BF16``) and shape of one stored tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The header of one safetensors file.

    Attributes:
        tensors: name -> dtype and shape, in the order of the header.
        spans: name -> (first byte, byte after the last), counted from the beginning of the file.
        metadata: the file's ``__metadata__``.
    """

    tensors: dict[str, TensorInfo]
    spans: dict[str, tuple[int, int]]
    metadata: dict[str, str]


def read_keys(path: str | Path) -> dict[str, TensorInfo]:
    """Every tensor of a safetensors file, or of a directory (one file, or shards with their index).

    Raises:
        BundleError: a file is missing, truncated or not well-formed, or the index and the shards disagree.
    """
    path = Path(path)
    files = weight_files(path) if path.is_dir() else [path]
    return {name: info for file in files for name, info in read_header(file).items()}


def weight_files(directory: str | Path) -> list[Path]:
    """The safetensors files that make up the checkpoint in `directory`: one file, or the shards that its index names.

    A stray ``*.safetensors`` beside them is an error, because loaders that glob (RLinf's does) would merge it in.

    Raises:
        BundleError: no weights, ambiguous weights, or shards that do not fit their index.
    """
    directory = Path(directory)
    present = {file.name for file in directory.glob("*.safetensors")}
    if (directory / INDEX_FILE).exists():
        shards: Mapping[str, set[str] | None] = _read_index(directory / INDEX_FILE)
    elif WEIGHTS_FILE in present:
        shards = {WEIGHTS_FILE: None}
    else:
        raise BundleError.of("no-weights", f"{directory}: neither {WEIGHTS_FILE} nor {INDEX_FILE}", _cure(directory))
    if missing := shards.keys() - present:
        cause = f"{directory / min(missing)} is missing"
        raise BundleError.of("weights-file-missing", cause, "copy the checkpoint again, complete")
    if stray := present - shards.keys():
        cause = f"{directory / min(stray)} does not belong to the checkpoint: no index names it"
        raise BundleError.of("stray-weights", cause, "remove it; loaders that read every *.safetensors would merge it")
    for name, keys in shards.items():
        if keys is not None and keys != read_header(directory / name).keys():
            cause = f"{directory / name}: its tensors are not the ones that {INDEX_FILE} names"
            raise BundleError.of("weights-index", cause, "copy the shards and their index again")
    return [directory / name for name in sorted(shards)]


def read_header(path: str | Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file, in the order of the file's header. Raises as `read_layout`."""
    return read_layout(path).tensors


def read_layout(path: str | Path) -> Layout:
    """The header of one safetensors file.

    Raises:
        BundleError: `path` is missing, truncated, or violates the format in a way that the library would refuse.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            if len(prefix) < 8:
                raise ValueError(f"it has {size} bytes, less than a header's length field")
            length = int.from_bytes(prefix, "little")
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise ValueError(f"its header claims {length} bytes, the file has {size}")
            layout = _parse(file.read(length), size - 8 - length)
            begin = 8 + length
            spans = {name: (begin + first, begin + end) for name, (first, end) in layout.spans.items()}
            return Layout(layout.tensors, spans, layout.metadata)
    except OSError as error:
        cause = f"{path} cannot be read: {error.strerror}"
        raise BundleError.of("weights-unreadable", cause, "check its name and permissions") from error
    except ValueError as error:
        cause = f"{path} is not a whole safetensors file: {error}"
        raise BundleError.of("damaged-safetensors", cause, "copy or convert it again") from error


def parse_header(header: bytes, data_bytes: int) -> dict[str, TensorInfo]:
    """Parse and check a header's JSON against the number of data bytes that follow it. Raises ValueError."""
    return _parse(header, data_bytes).tensors


def _parse(header: bytes, data_bytes: int) -> Layout:
    """Like `parse_header`, but returns the spans too, counted from the beginning of the data."""
    if not header.startswith(b"{"):
        raise ValueError("its header does not start with '{'")
    entries = parse_json(header)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is not a map of strings")
    tensors, spans = {}, {}
    for name, entry in entries.items():
        tensors[name], spans[name] = _parse_entry(name, entry)
    end = 0
    for begin, stop in sorted(spans.values()):
        if begin != end:
            raise ValueError(f"its tensors leave a hole or overlap at byte {begin}")
        end = stop
    if end != data_bytes:
        raise ValueError(f"its tensors need {end} bytes of data, the file has {data_bytes}")
    return Layout(tensors, spans, metadata)


def _parse_entry(name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r} has a shape or offsets that are not lists of sizes")
    begin, end = offsets
    if (end - begin) * 8 != math.prod(shape) * BITS[dtype]:
        raise ValueError(f"tensor {name!r} has {end - begin} bytes, not what {dtype} {shape} takes")
    return TensorInfo(dtype, tuple(shape)), (begin, end)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _read_index(path: Path) -> dict[str, set[str]]:
    """Shard file name -> names of the tensors that it holds according to the index."""
    try:
        index = read_json(path, MAX_HEADER_BYTES)
        weight_map = index["weight_map"]
        if not isinstance(weight_map, Mapping) or not weight_map:
            raise ValueError("weight_map is empty or not a map")
        shards: dict[str, set[str]] = {}
        for tensor, name in weight_map.items():
            # A shard must be beside its index: with paths, an index could make us read any file of the machine.
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
                raise ValueError(f"{name!r} is not the name of a safetensors file beside it")
            shards.setdefault(name, set()).add(tensor)
        return shards
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause = f"{path} is not a safetensors index: {error}"
        raise BundleError.of("weights-index", cause, "copy the checkpoint again") from error


def _cure(directory: Path) -> str:
    """The cure for a directory without safetensors, depending on what it holds instead."""
    if (directory / "params").is_dir():
        return "this is a JAX checkpoint: convert it with openpi's examples/convert_jax_model_to_pytorch.py"
    if any(directory.rglob("full_weights.pt")):
        return f"this is an RLinf checkpoint (full_weights.pt): rlinf-isaac bundle make {directory}"
    return "name the directory of one checkpoint"
