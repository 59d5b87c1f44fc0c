"""Checkpoints as the libraries that wrote them read them: what a conversion is compared with. Needs torch.

Nothing is executed here either: ``torch.load`` gets ``weights_only=True``, and the metadata of a distributed
checkpoint, which torch itself reads with plain pickle, an unpickler that knows the classes torch writes there.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
import torch.distributed.tensor  # torch.load knows DTensors once this is imported
from safetensors import safe_open
from torch.distributed.checkpoint.metadata import Metadata

from rlinf_isaac.checkpoint.convert.archive import is_archive
from rlinf_isaac.checkpoint.convert.load_archive import load_archive
from rlinf_isaac.checkpoint.convert.plan import Output
from rlinf_isaac.checkpoint.convert.source import SourceFiles
from rlinf_isaac.checkpoint.convert.tensors import DTYPES, TORCH_NAMES
from rlinf_isaac.checkpoint.find_weights import Weights
from rlinf_isaac.ground.errors import WeightsError

Reference = Callable[[Output], torch.Tensor]

_UNREADABLE = (pickle.UnpicklingError, dcp.CheckpointException, RuntimeError, KeyError)

_DCP_GLOBALS = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *DTYPES},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "pathlib._local": {"PosixPath", "PurePosixPath"},
    "collections": {"OrderedDict"},
}


@contextmanager
def open_reference(weights: Weights) -> Iterator[Reference]:
    """Yield a function from a planned output to its tensor in the source, on the CPU and in its own dtype.

    Raises:
        WeightsError: torch cannot read the source.
    """
    try:
        if weights.format == "safetensors":
            yield _safetensors(weights.files)
        elif weights.format == "dcp":
            yield _distributed(weights.directory)
        elif weights.format == "jax":
            with SourceFiles() as source:
                yield lambda output: _own(output, source)
        elif is_archive(weights.files[0]):
            tensors: dict[str, torch.Tensor] = {}
            _flatten(load_archive(weights.files[0]), (), tensors)
            yield lambda output: tensors[output.stored]
        else:
            with SourceFiles() as source:
                yield lambda output: _own(output, source)
    except _UNREADABLE as error:
        cause = f"torch cannot read {weights.files[0]}: {str(error).strip().splitlines()[0] if str(error) else error!r}"
        raise WeightsError.of(
            "not-verified", cause, "pass --verify false if you trust the conversion all the same"
        ) from error


def _safetensors(files: tuple[Path, ...]) -> Reference:
    def find(output: Output) -> torch.Tensor:
        name = output.stored
        storage = getattr(output.source, "storage")  # noqa: B009  (never split in this format)
        with safe_open(storage.file, framework="pt") as handle:
            return handle.get_tensor(name if name in handle.keys() else storage.record)  # noqa: SIM118  (no mapping)

    return find


def _own(output: Output, source: SourceFiles) -> torch.Tensor:
    """The converter's own reading, once more: torch cannot map old ``.pt`` files, and cannot read orbax's at all."""
    dtype = getattr(torch, TORCH_NAMES[output.source.dtype])
    data = b"".join(map(bytes, source.pieces(output.source)))
    flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(output.source.shape)


def _flatten(value: Any, keys: tuple[str, ...], tensors: dict[str, torch.Tensor]) -> None:
    if isinstance(value, torch.distributed.tensor.DTensor):
        value = value.to_local()
    if isinstance(value, torch.Tensor):
        tensors[".".join(keys)] = value.detach()
    elif isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            _flatten(inner, (*keys, str(key)), tensors)


def _distributed(directory: Path) -> Reference:
    with open(directory / ".metadata", "rb") as stream:
        metadata = _MetadataUnpickler(stream).load()
    names = {".".join(map(str, keys)): name for name, keys in (metadata.planner_data or {}).items()}

    def find(output: Output) -> torch.Tensor:
        name = names.get(output.stored, output.stored)
        entry = metadata.state_dict_metadata[name]
        tensor = torch.empty(entry.size, dtype=entry.properties.dtype)
        with warnings.catch_warnings():
            # torch warns that it assumes one process, which is what is meant.
            warnings.filterwarnings("ignore", message="torch.distributed is .*", category=UserWarning)
            dcp.load({name: tensor}, storage_reader=_Reader(directory, metadata), planner=_TensorsOnly())
        return tensor

    return find


class _Reader(dcp.FileSystemReader):
    """Reads with metadata that was unpickled safely, instead of unpickling them itself."""

    def __init__(self, directory: Path, metadata: Metadata) -> None:
        super().__init__(directory)
        self._metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._metadata


class _TensorsOnly(dcp.DefaultLoadPlanner):
    """Reads tensors; entries of bytes, which torch would unpickle, never."""

    def load_bytes(self, read_item: Any, value: Any) -> None:
        raise WeightsError.of("unsafe-pickle", f"{read_item} is a pickled object", "store the model's tensors alone")


class _MetadataUnpickler(pickle.Unpickler):
    """Knows the classes that torch writes into ``.metadata``, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _DCP_GLOBALS.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
