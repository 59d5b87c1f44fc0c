"""Finds the tensors in a directory of torch.distributed.checkpoint. Their values are not read, and torch not imported.

``.metadata`` is a pickle. For every box of a tensor it names a ``.distcp`` file and a place in it, where a file of
``torch.save`` holds that box. torch checks neither of them: it reads the metadata with plain pickle, and elements of a
tensor that no box covers keep whatever was in memory. This module checks both.
https://github.com/pytorch/pytorch/blob/main/torch/distributed/checkpoint/metadata.py
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.convert import unpickle
from rlinf_isaac.checkpoint.convert.archive import Record
from rlinf_isaac.checkpoint.convert.objects import dtype_of
from rlinf_isaac.checkpoint.convert.tensors import (
    AnyTensor,
    Keys,
    Storage,
    StoredTensor,
    Unstorable,
    bytes_of,
    dense_stride,
    shown,
)
from rlinf_isaac.checkpoint.convert.torch_file import Part, TorchFile, read_torch_file
from rlinf_isaac.checkpoint.convert.unpickle import Call, Forbidden
from rlinf_isaac.checkpoint.header import BITS
from rlinf_isaac.ground.errors import WeightsError
from rlinf_isaac.ground.reading import read_bytes

_MODULE = "torch.distributed.checkpoint.metadata."
_COPY_AGAIN = "copy the distributed checkpoint again"


def read_distributed(directory: Path) -> TorchFile:
    """The tensors of a distributed checkpoint. Other entries (optimiser state that is no tensor) are only counted.

    Raises:
        WeightsError: a file is missing or damaged, or wants to run code.
    """
    file = directory / ".metadata"
    try:
        metadata = unpickle.loads(read_bytes(file, unpickle.MAX_BYTES))
        entries, places, paths = _sections(metadata)
        tensors: dict[Keys, AnyTensor] = {}
        records: list[Record] = []
        parts: dict[str, tuple[Part, ...]] = {}
        for name, entry in entries.items():
            if entry.name == _MODULE + "TensorStorageMetadata":
                keys = _path(name, paths.get(name, (name,)))
                if keys in tensors:
                    raise ValueError(f"two of its entries are called {shown(name)}")
                tensors[keys], parts[name] = _tensor(directory, name, keys, entry, places, records)
        return TorchFile(tensors, len(entries) - len(tensors), tuple(records), parts)
    except Forbidden as error:
        cause = f"{file} wants to run {error.args[0]} while it is loaded; that is never allowed"
        raise WeightsError.of("unsafe-pickle", cause, "save the model's tensors alone") from error
    except OSError as error:
        cause = f"{error.filename or directory} cannot be read: {error.strerror}"
        raise WeightsError.of("damaged-dcp", cause, _COPY_AGAIN) from error
    except (pickle.UnpicklingError, ValueError, TypeError, AttributeError, KeyError) as error:
        cause = f"{file} is not the metadata of a distributed checkpoint: {error}"
        raise WeightsError.of("damaged-dcp", cause, _COPY_AGAIN) from error


def _sections(metadata: Any) -> tuple[dict[str, Call], dict[tuple[str, Keys | None], dict[str, Any]], dict[str, Any]]:
    """Maps name -> description of the entry, (name, corner of a box) -> place of the box, name -> keys of the entry."""
    if not isinstance(metadata, Call) or metadata.name != _MODULE + "Metadata":
        raise ValueError("its pickle holds no metadata")
    places = {}
    for index, place in metadata.state["storage_data"].items():
        offset = index.state.get("offset")
        places[index.state["fqn"], None if offset is None else tuple(offset)] = place.state
    planner = metadata.state.get("planner_data")
    return metadata.state["state_dict_metadata"], places, planner if isinstance(planner, dict) else {}


def _path(name: Any, keys: Any) -> Keys:
    if not isinstance(keys, tuple) or any(not isinstance(key, str | int) for key in (name, *keys)):
        raise ValueError("the name of an entry is neither a text nor a number")
    return tuple(map(str, keys))


def _tensor(
    directory: Path, name: str, keys: Keys, entry: Call, places: dict[Any, dict[str, Any]], records: list[Record]
) -> tuple[AnyTensor, tuple[Part, ...]]:
    """The tensor with this name, and the parts that torch puts it together from.

    The records of the parts are appended to `records`. Each gets the name of the tensor.
    """
    properties = entry.state["properties"]
    values = properties.state.get("", properties.state)  # its __getstate__ gives a tuple
    dtype = dtype_of(values[0] if isinstance(values, tuple) else values["dtype"])
    shape = _sizes(entry.state["size"])
    if dtype not in BITS:
        return Unstorable(f"a tensor of dtype {dtype}", "cast it before saving; safetensors has no such dtype"), ()
    parts = []
    for chunk in entry.state["chunks"]:
        corner, sizes = _sizes(chunk.state["offsets"]), _sizes(chunk.state["sizes"])
        place = places[name, corner]
        piece, found = _piece(directory, name, place)
        if piece.dtype != dtype or piece.shape != sizes or len(corner) != len(sizes) or len(sizes) != len(shape):
            raise ValueError(f"a part of {shown(name)} has another dtype or shape than the metadata says")
        if any(low + size > whole for low, size, whole in zip(corner, sizes, shape, strict=True)):
            raise ValueError(f"a part of {shown(name)} lies outside of the whole")
        parts.append(Part(corner, sizes, place["relative_path"], place["offset"], place["length"]))
        records += [record._replace(name=name) for record in found]
    if sum(math.prod(part.sizes) for part in parts) != math.prod(shape) or _overlap([part[:2] for part in parts]):
        raise ValueError(f"the parts of {shown(name)} do not make up the whole")
    storage = Storage(directory / ".metadata", name, bytes_of(dtype, shape))
    return StoredTensor(dtype, shape, dense_stride(shape), storage, keys=keys), tuple(parts)


def _piece(directory: Path, name: str, place: dict[str, Any]) -> tuple[StoredTensor, tuple[Record, ...]]:
    """The tensor and the records of one box, from the file of ``torch.save`` at its place in a ``.distcp`` file."""
    relative, offset, length = place["relative_path"], place["offset"], place["length"]
    # A path with directories in it would let the metadata read any file of the machine.
    if not isinstance(relative, str) or Path(relative).name != relative or place.get("transform_descriptors"):
        raise ValueError(f"{shown(name)} lies outside of the directory, or is compressed")
    if type(offset) is not int or type(length) is not int or offset < 0 or length < 0:
        raise ValueError(f"{shown(name)} has no valid place in a file")
    content = read_torch_file(directory / relative, offset, length)
    tensor = content.tensors.get(())
    if not isinstance(tensor, StoredTensor):
        raise ValueError(
            f"{shown(name)} is not one tensor but {tensor.kind if isinstance(tensor, Unstorable) else 'something else'}"
        )
    return tensor, content.records


def _overlap(boxes: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> bool:
    """Whether any two boxes, given by corner and sizes, have an element in common."""
    boxes = sorted((corner, sizes) for corner, sizes in boxes if 0 not in sizes)
    for index, (corner, sizes) in enumerate(boxes):
        for other_corner, other_sizes in boxes[index + 1 :]:
            if corner and other_corner[0] >= corner[0] + sizes[0]:
                break  # the boxes are sorted: all later ones begin even further away
            both = zip(corner, sizes, other_corner, other_sizes, strict=True)
            if all(low < other + size2 and other < low + size for low, size, other, size2 in both):
                return True
    return False


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > 64 or any(type(n) is not int or not 0 <= n < 2**60 for n in value):
        raise ValueError("a shape or an offset is not a tuple of sizes")
    return value
