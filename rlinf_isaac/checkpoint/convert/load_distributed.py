"""Tensors of a distributed checkpoint by torch itself, which is given metadata that were read safely. Needs torch."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from rlinf_isaac.checkpoint.convert.names import METADATA
from rlinf_isaac.checkpoint.convert.tensors import DTYPES
from rlinf_isaac.errors import WeightsError

_KNOWN: dict[str, set[str]] = {
    **{module: set(names.split()) for module, names in METADATA.items()},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *DTYPES},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "pathlib._local": {"PosixPath", "PurePosixPath"},
    "collections": {"OrderedDict"},
}


def read_metadata(directory: Path) -> Metadata:
    """The metadata of a distributed checkpoint. Raises pickle.UnpicklingError where they name anything else."""
    with open(directory / ".metadata", "rb") as stream:
        return _Unpickler(stream).load()


def load_tensor(directory: Path, metadata: Metadata, name: str) -> torch.Tensor:
    """One tensor, put together of its parts. Raises RuntimeError where torch cannot read them."""
    entry = metadata.state_dict_metadata[name]
    assert isinstance(entry, TensorStorageMetadata)
    tensor = torch.empty(entry.size, dtype=entry.properties.dtype)
    try:
        with warnings.catch_warnings():
            # torch warns that it assumes one process, which is what is meant.
            warnings.filterwarnings("ignore", message="torch.distributed is .*", category=UserWarning)
            dcp.load({name: tensor}, storage_reader=_Reader(directory, metadata), planner=_TensorsOnly())
    except dcp.CheckpointException as error:
        raise RuntimeError(str(error)) from error
    return tensor


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


class _Unpickler(pickle.Unpickler):
    """Knows the classes that torch writes into ``.metadata``, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _KNOWN.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")
