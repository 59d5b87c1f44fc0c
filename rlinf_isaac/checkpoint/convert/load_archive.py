"""Files of ``torch.save`` as torch reads them, whatever protocol their pickle is of. Needs torch; executes nothing.

``torch.load(weights_only=True)`` knows the operations of pickle's protocol 2 alone. What was saved with another
(``pickle_protocol=4``) is read here by Python's own unpickler, which may name nothing but what torch rebuilds tensors
with, and by torch's own reader of archives. The converter has read the file before and refused it if it names more.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch.serialization import StorageType

_FUNCTIONS = {
    "_rebuild_tensor": torch._utils._rebuild_tensor,
    "_rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "_rebuild_tensor_v3": torch._utils._rebuild_tensor_v3,
    "_rebuild_parameter": torch._utils._rebuild_parameter,
}
_TORCHS_PROTOCOL = 2


def load_archive(path: Path) -> Any:
    """The content of a file of ``torch.save``, its tensors mapped.

    Raises:
        pickle.UnpicklingError: it names something else.
        RuntimeError: torch cannot read the archive.
    """
    reader = torch._C.PyTorchFileReader(str(path))
    data = reader.get_record("data.pkl")
    if _protocol(data) <= _TORCHS_PROTOCOL:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    mapped: Any = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
    return _Unpickler(data, reader, mapped).load()


def _protocol(data: bytes) -> int:
    code, protocol, _ = next(pickletools.genops(data[:2]))
    return protocol if code.name == "PROTO" and isinstance(protocol, int) else 0


class _Unpickler(pickle.Unpickler):
    """Knows what makes a state dict, and nothing else."""

    def __init__(self, data: bytes, reader: Any, mapped: torch.UntypedStorage) -> None:
        super().__init__(io.BytesIO(data))
        self._reader, self._mapped = reader, mapped

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch", "Size"):
            return torch.Size
        if module == "torch._utils" and name in _FUNCTIONS:
            return _FUNCTIONS[name]
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return torch.uint8
        if module == "torch" and name.endswith("Storage") and name.isidentifier():
            return StorageType(name).dtype
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> torch.TypedStorage:
        """The storage that a tensor is a view of, within the mapped file."""
        kind, dtype, key, _, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or type(numel) is not int or numel < 0:
            raise pickle.UnpicklingError("it names a storage that is none")
        begin = self._reader.get_record_offset(f"data/{key}") if numel else 0
        part = self._mapped[begin : begin + numel * dtype.itemsize]
        return torch.TypedStorage(wrap_storage=part, dtype=dtype, _internal=True)
