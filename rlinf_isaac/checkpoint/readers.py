"""The tensors of a foreign checkpoint: safetensors, a pickled state dict, or torch.distributed.checkpoint. Needs torch.

Names, dtypes and shapes come first, the values when they are asked for. Nothing in a checkpoint is ever executed:
a state dict is unpickled with ``weights_only=True``, and the metadata of a distributed checkpoint, which torch itself
reads with plain pickle, by an unpickler that knows the classes torch writes there and no others.
"""

from __future__ import annotations

import math
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from rlinf_isaac.checkpoint.header import TensorInfo, read_header
from rlinf_isaac.checkpoint.sources import Weights
from rlinf_isaac.errors import WeightsError

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# Where RLinf (FSDP) and others put the model within a distributed checkpoint; the optimiser lies beside it.
_DCP_MODEL_PREFIXES = ("fsdp_checkpoint.model.", "model.", "state_dict.")
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
    "torch": {"Size", *(str(dtype).removeprefix("torch.") for dtype in _DTYPES)},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "pathlib._local": {"PosixPath", "PurePosixPath"},
    "collections": {"OrderedDict"},
}


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of a checkpoint under the names they are stored with.

    Attributes:
        infos: name -> dtype and shape.
        load: the values of some of them, on the CPU.
        left_out: how many other entries the checkpoint has (optimiser state, numbers, texts).
    """

    infos: Mapping[str, TensorInfo]
    load: Callable[[Iterable[str]], dict[str, torch.Tensor]]
    left_out: int = 0


def read_tensors(weights: Weights) -> StoredTensors:
    """Open weights of any format.

    Raises:
        BundleError: a file is damaged.
        WeightsError: a pickle asks for a class that no state dict needs, or the file is no state dict.
    """
    if weights.format == "safetensors":
        return _read_safetensors(weights.files)
    return _read_torch(weights.files[0]) if weights.format == "torch" else _read_dcp(weights.directory)


def _read_safetensors(files: tuple[Path, ...]) -> StoredTensors:
    headers = {file: read_header(file) for file in files}

    def load(names: Iterable[str]) -> dict[str, torch.Tensor]:
        wanted = set(names)
        tensors: dict[str, torch.Tensor] = {}
        for file, header in headers.items():
            with safe_open(file, framework="pt") as handle:
                tensors |= {name: handle.get_tensor(name) for name in header if name in wanted}
        return tensors

    return StoredTensors({name: info for header in headers.values() for name, info in header.items()}, load)


def _read_torch(file: Path) -> StoredTensors:
    """A state dict, or dicts around one; nested names are joined by dots. Mapped into memory, not read."""
    try:
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unsafe(file, error) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        cause = (
            f"{file} is not a whole checkpoint of torch.save: {str(error).splitlines()[0] if str(error) else error!r}"
        )
        cure = "copy it again; if it was saved before torch 1.6, save it again with a newer torch"
        raise WeightsError.of("damaged-pickle", cause, cure) from error
    tensors: dict[str, torch.Tensor] = {}
    left_out = _flatten(content, "", tensors)
    if not tensors:
        cause = f"{file} holds no tensors but a {type(content).__name__}"
        raise WeightsError.of("empty-weights", cause, "name the file that holds the model's state dict")
    return StoredTensors(
        {name: _info(f"{file}: {name}", tensor.dtype, tensor.shape) for name, tensor in tensors.items()},
        lambda names: {name: tensors[name] for name in names},
        left_out,
    )


def _flatten(value: Any, prefix: str, tensors: dict[str, torch.Tensor]) -> int:
    """Collect the tensors in nested maps and lists; returns how many other leaves there are."""
    if isinstance(value, torch.Tensor):
        tensors[prefix.removesuffix(".")] = value
        return 0
    if isinstance(value, Mapping):
        return sum(_flatten(inner, f"{prefix}{key}.", tensors) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return sum(_flatten(inner, f"{prefix}{index}.", tensors) for index, inner in enumerate(value))
    return 1


def _unsafe(file: Path, error: pickle.UnpicklingError) -> WeightsError:
    """What a refused pickle asked for: a class or function that no state dict needs, or nothing sensible."""
    wanted = re.search(r"GLOBAL ([\w.]+)|Unsupported class ([\w.]+)", str(error))
    if wanted is None:
        cause = f"{file} is not a pickle of torch.save: {str(error).splitlines()[0] if str(error) else error!r}"
        return WeightsError.of("damaged-pickle", cause, "copy it again, or convert it where it was made")
    cause = f"{file} wants to run {wanted[1] or wanted[2]} while it is loaded; that was not allowed"
    cure = "where it was made, save the tensors alone: torch.save(model.state_dict(), ...), or safetensors"
    return WeightsError.of("unsafe-pickle", cause, cure)


def _read_dcp(directory: Path) -> StoredTensors:
    """The model's tensors of a distributed checkpoint, put together in this process, without a process group."""
    metadata = _read_dcp_metadata(directory / ".metadata")
    sizes = {
        name: entry for name, entry in metadata.state_dict_metadata.items() if isinstance(entry, TensorStorageMetadata)
    }
    prefix = next((p for p in _DCP_MODEL_PREFIXES if any(name.startswith(p) for name in sizes)), "")
    infos = {
        name: _info(f"{directory}: {name}", entry.properties.dtype, entry.size)
        for name, entry in sizes.items()
        if name.startswith(prefix)
    }

    def load(names: Iterable[str]) -> dict[str, torch.Tensor]:
        tensors = {name: torch.empty(sizes[name].size, dtype=sizes[name].properties.dtype) for name in names}
        with warnings.catch_warnings():
            # torch warns that it assumes one process, which is what is meant.
            warnings.filterwarnings("ignore", message="torch.distributed is .*", category=UserWarning)
            try:
                dcp.load(tensors, storage_reader=_Reader(directory, metadata), planner=_TensorsOnly())
            except (dcp.CheckpointException, RuntimeError, OSError, ValueError, EOFError) as error:
                cause = f"{directory} cannot be read: {str(error).strip().splitlines()[-1]}"
                raise WeightsError.of("damaged-dcp", cause, "copy the distributed checkpoint again") from error
        return tensors

    return StoredTensors(infos, load, len(metadata.state_dict_metadata) - len(infos))


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


def _read_dcp_metadata(file: Path) -> Metadata:
    try:
        with open(file, "rb") as stream:
            metadata = _MetadataUnpickler(stream).load()
        # A path with directories in it would let the metadata read any file of the machine.
        names = {info.relative_path for info in metadata.storage_data.values()}
        if not isinstance(metadata, Metadata) or any(Path(name).name != name for name in names):
            raise ValueError("its entries are not those of a distributed checkpoint")
        for name, entry in metadata.state_dict_metadata.items():
            if isinstance(entry, TensorStorageMetadata) and not _is_complete(entry):
                raise ValueError(f"the parts of {name} do not make up the whole")
        return metadata
    except pickle.UnpicklingError as error:
        raise _unsafe(file, error) from error
    except (OSError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError) as error:
        cause = f"{file} is not the metadata of a distributed checkpoint: {error}"
        raise WeightsError.of("damaged-dcp", cause, "copy the distributed checkpoint again") from error


def _is_complete(entry: TensorStorageMetadata) -> bool:
    """Whether the parts have as many elements as the tensor; torch would leave the rest uninitialised."""
    return sum(math.prod(chunk.sizes) for chunk in entry.chunks) == math.prod(entry.size)


def _info(name: str, dtype: torch.dtype, shape: Iterable[int]) -> TensorInfo:
    if dtype not in _DTYPES:
        raise WeightsError.of("weights-dtype", f"{name} is {dtype}", "use a checkpoint of a plain floating-point type")
    return TensorInfo(_DTYPES[dtype], tuple(shape))
