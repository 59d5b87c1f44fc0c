"""Reads the values of a checkpoint with the library that wrote it: torch, torch.distributed or safetensors.

Files are mapped, so that memory holds only the values that are being read. torch cannot map two kinds of files: a file
that was written before torch 1.6 is read as a whole, and a distributed checkpoint tensor by tensor. No code in a file
is executed. This module needs torch.
"""

from __future__ import annotations

import importlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, cast

import torch
from safetensors import SafetensorError, safe_open

from rlinf_isaac.checkpoint.convert.archive import Window, is_archive
from rlinf_isaac.checkpoint.convert.check import check
from rlinf_isaac.checkpoint.convert.names import stand_ins
from rlinf_isaac.checkpoint.convert.plan import Output
from rlinf_isaac.checkpoint.convert.read import Stored
from rlinf_isaac.checkpoint.convert.tensors import (
    TORCH_NAMES,
    AnyDense,
    ComputedTensor,
    Keys,
    StoredTensor,
    ZeroTensor,
    shown,
)
from rlinf_isaac.checkpoint.header import BITS
from rlinf_isaac.ground.errors import WeightsError

PIECE = 1 << 20  # fits into a core's cache, so that it is hashed and written from there
_TORCHS_PROTOCOL = 2  # torch's own safe reader knows only this protocol of pickle


def torch_dtype(name: str) -> torch.dtype:
    """torch's dtype for safetensors' name of it."""
    return cast(torch.dtype, getattr(torch, TORCH_NAMES[name]))


# The functions and classes that a pickle of another protocol may import. They build tensors and containers.
_IMPORTABLE = frozenset(
    {
        *("collections.OrderedDict", "collections.Counter", "_codecs.encode", "torch.Size", "torch.device"),
        *("builtins.set", "builtins.bytearray", "builtins.complex", "torch.storage.UntypedStorage"),
        "torch._utils._rebuild_parameter",
        *(f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3")),
    }
)


class Source:
    """Reads the tensors of a checkpoint. It is a context manager.

    Args:
        stored: the tensors of the checkpoint and their places; None if all tensors are computed.
        checked: tensors whose bytes are compared with their checksums on entering.

    Raises (on entering, and when a tensor is asked for):
        WeightsError: the source is damaged, or was changed since it was looked at.
        OSError: the source cannot be read.
    """

    def __init__(self, stored: Stored | None = None, checked: list[AnyDense | ZeroTensor] | None = None) -> None:
        self._stored, self._checked = stored, checked
        self._stack = ExitStack()
        self._files: dict[Path, Any] = {}
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._tensors: dict[Keys, torch.Tensor] = {}

    def __enter__(self) -> Self:
        if self._stored is not None:
            for file in self._stored.weights.files:
                self._stamp(file)
            if self._checked is not None:
                check(self._stored, self._checked)
        return self

    def __exit__(self, *exception: object) -> None:
        self._tensors.clear()
        self._stack.close()

    def tensor(self, tensor: AnyDense | ZeroTensor) -> torch.Tensor:
        """The values of a tensor on the CPU in its own dtype, mapped from the file if the library can do so."""
        if isinstance(tensor, ZeroTensor):
            return torch.zeros(1, dtype=torch_dtype(tensor.dtype)).expand(tensor.shape)
        if isinstance(tensor, ComputedTensor):
            return self._computed(tensor)
        assert self._stored is not None
        root = self._stored.tensors[tensor.keys]
        assert isinstance(root, StoredTensor)
        with _refusals(self._stored.weights.files[0]):
            whole = self._whole(root, self._stored)
        if TORCH_NAMES.get(root.dtype, "") not in ("", str(whole.dtype).removeprefix("torch.")) or (
            (tuple(whole.shape), whole.stride()) != (root.shape, root.stride) and whole.numel()
        ):
            name = shown(".".join(tensor.keys))
            cause = f"torch reads {name} as {whole.dtype} {list(whole.shape)}, which differs from the file"
            raise WeightsError.of("source-changed", cause, "wait until it is complete, and convert it again")
        if (tensor.shape, tensor.stride, tensor.shift) == (root.shape, root.stride, 0):
            return whole
        return whole.as_strided(tensor.shape, tensor.stride, whole.storage_offset() + tensor.shift)

    def blocks(self, output: Output) -> Iterator[tuple[torch.Tensor, memoryview]]:
        """Yield the values of an output in its dtype, in dense blocks, each with its bytes.

        Raises:
            WeightsError: the source is damaged or was changed, or the cast makes a finite value infinite.
        """
        for values in blocks(self.tensor(output.source)):
            result = values.to(torch_dtype(output.dtype)) if output.is_cast else values
            if result.itemsize < values.itemsize and not result.isfinite().all():
                lost = values[result.isinf() & values.isfinite()]
                if len(lost):
                    cause = (
                        f"{output.stored} has values up to {lost.abs().max().item():.3g}, too large for {result.dtype}"
                    )
                    cure = f"choose another --dtype, or do not cast this tensor: --keep-dtype {output.name}"
                    raise WeightsError.of("cast-overflow", cause, cure)
            yield result, as_bytes(result)

    def raise_if_changed(self) -> None:
        """Raise a WeightsError if a file was written to after it was opened here."""
        for file, stamp in self._stamps.items():
            status = os.stat(file)
            if (status.st_size, status.st_mtime_ns) != stamp:
                cause = f"{file} was changed while it was read"
                raise WeightsError.of("source-changed", cause, "wait until it is complete, and convert it again")

    def _stamp(self, file: Path) -> None:
        status = os.stat(file)
        self._stamps.setdefault(file, (status.st_size, status.st_mtime_ns))

    def _whole(self, tensor: StoredTensor, stored: Stored) -> torch.Tensor:
        """A tensor of the source as the library that wrote it reads it."""
        if stored.weights.format == "safetensors":
            file = tensor.storage.file
            if file not in self._files:
                self._files[file] = self._stack.enter_context(safe_open(file, framework="pt"))
            return self._files[file].get_tensor(tensor.storage.name)
        if stored.weights.format == "torch":
            if not self._tensors:
                _flatten(load_torch(stored.weights.files[0]), (), self._tensors)
        elif tensor.keys not in self._tensors:
            self._tensors = {tensor.keys: _load_distributed(tensor, stored)}  # only the last tensor is kept
        return self._tensors[tensor.keys]

    def _computed(self, tensor: ComputedTensor) -> torch.Tensor:
        import numpy as np

        for file in tensor.files:
            self._stamp(file)
        array = tensor.read()
        if array.shape != tensor.shape or array.itemsize * 8 != BITS[tensor.dtype]:
            what = f"{array.dtype} {list(array.shape)}, but was {tensor.dtype} {list(tensor.shape)} before"
            cure = "wait until it is complete, and convert it again"
            raise WeightsError.of("source-changed", f"{tensor.key[0]} is {what}", cure)
        flat = np.require(array, requirements=["C", "W"]).reshape(-1).view("u1")
        return torch.from_numpy(flat).view(torch_dtype(tensor.dtype)).reshape(tensor.shape)


def load_torch(path: Path) -> Any:
    """The content of a file of ``torch.save`` that `read_torch_file` has checked.

    Raises:
        pickle.UnpicklingError: the file names a class or function that neither torch nor `names` allows.
        RuntimeError: torch cannot read the file.
    """
    with Window(path) as window:
        archive, data = is_archive(window), window.at(0, 2)
        if archive:
            with zipfile.ZipFile(cast(Any, window)) as records:
                name = next(name for name in records.namelist() if name.partition("/")[2] == "data.pkl")
                data = records.read(name)
            if b"torch.distributed" in data:
                importlib.import_module("torch.distributed.tensor")  # torch.load then knows DTensors
        # torch cannot open a path that is not printable text, so it gets the path of the open file.
        file = path if str(path).isprintable() else f"/dev/fd/{window.fileno()}"
        if data[:1] == pickle.PROTO and data[1] > _TORCHS_PROTOCOL:
            # weights_only=False hands the pickle to `_Restricted`, which imports no name that is not on its list.
            return torch.load(file, map_location="cpu", mmap=archive, weights_only=False, pickle_module=_Restricted)
        with torch.serialization.safe_globals(stand_ins()):
            return torch.load(file, map_location="cpu", mmap=archive, weights_only=True)


def _load_distributed(tensor: StoredTensor, stored: Stored) -> torch.Tensor:
    """A tensor of a distributed checkpoint. torch gets the metadata that was checked, and unpickles none itself."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import metadata as names
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    name = tensor.storage.name
    found = torch.empty(tensor.shape, dtype=torch_dtype(tensor.dtype))
    parts = stored.parts[name]
    chunks = [names.ChunkStorageMetadata(torch.Size(part.corner), torch.Size(part.sizes)) for part in parts]
    entry = names.TensorStorageMetadata(names.TensorProperties.create_from_tensor(found), found.size(), chunks)
    places = {
        names.MetadataIndex(name, chunk.offsets): _StorageInfo(part.file, part.offset, part.length)
        for chunk, part in zip(chunks, parts, strict=True)
    }

    class Reader(dcp.FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> names.Metadata:
            return names.Metadata({name: entry}, storage_data=places)

    with warnings.catch_warnings():
        # torch warns that it assumes a single process, which is right here.
        warnings.filterwarnings("ignore", message="torch.distributed is .*", category=UserWarning)
        dcp.load({name: found}, storage_reader=Reader(stored.weights.directory))
    return found


class _Restricted:
    """A stand-in for the module `pickle` whose `Unpickler` imports nothing but the names in `_IMPORTABLE` and dtypes.

    The names in `names.HARMLESS` become inert classes; every other name is refused. torch's own safe reader knows only
    protocol 2, so `load_torch` needs this for files such as those of ``torch.save(pickle_protocol=4)``.
    """

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            full = f"{module}.{name}"
            for each in stand_ins():
                if f"{each.__module__}.{each.__qualname__}" == full:
                    return each
            if full in _IMPORTABLE or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
                return super().find_class(module, name)
            raise pickle.UnpicklingError(f"it names {full}")

    @classmethod
    def load(cls, file: Any, **arguments: Any) -> Any:
        return cls.Unpickler(file, **arguments).load()


@contextmanager
def _refusals(file: Path) -> Iterator[None]:
    """Turn what a library raises for a damaged source into a WeightsError that names the file and a cure."""
    try:
        yield
    except (WeightsError, OSError, MemoryError):
        raise
    except SafetensorError as error:
        cause = f"{file} is not a whole safetensors file: {_first_line(error)}"
        raise WeightsError.of("damaged-safetensors", cause, "copy or convert it again") from error
    except Exception as error:  # torch raises exceptions of many types for files that it does not know
        cure = "load it in the torch that made it, and save it again: torch.save(model.state_dict(), ...)"
        raise WeightsError.of("torch-refuses", f"torch does not read {file}: {_first_line(error)}", cure) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else repr(error)


def _flatten(value: Any, keys: Keys, tensors: dict[Keys, torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        tensors[keys] = (value.to_local() if hasattr(value, "to_local") else value).detach()
    elif isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            _flatten(inner, (*keys, str(key)), tensors)


def blocks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the elements of a tensor in order, as dense tensors of one axis and of about `PIECE` bytes."""
    if tensor.numel() == 0:
        return
    row = tensor.nbytes // len(tensor) if tensor.ndim else 0
    if tensor.is_contiguous():
        yield from tensor.view(-1).split(PIECE // tensor.element_size())
    elif row > PIECE:
        for inner in tensor:
            yield from blocks(inner)
    else:
        for rows in tensor.split(PIECE // row):
            yield rows.contiguous().view(-1)


def as_bytes(block: torch.Tensor) -> memoryview:
    """The bytes of a dense tensor of one axis."""
    return block.view(torch.uint8).numpy().data
