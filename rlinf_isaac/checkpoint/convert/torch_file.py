"""Files of ``torch.save``, zip (torch 1.6 and later) or legacy: their tensors, read without torch and without values.

https://github.com/pytorch/pytorch/blob/main/torch/serialization.py (``_save``, ``_legacy_save``)
"""

from __future__ import annotations

import os
import pickle
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rlinf_isaac.checkpoint.convert import unpickle
from rlinf_isaac.checkpoint.convert.archive import ForeignArchive, Record, is_archive, read_records
from rlinf_isaac.checkpoint.convert.objects import dtype_of, to_tensor
from rlinf_isaac.checkpoint.convert.tensors import AnyTensor, Storage, shown
from rlinf_isaac.checkpoint.convert.unpickle import Call, Forbidden, PersistentId
from rlinf_isaac.checkpoint.header import BITS
from rlinf_isaac.ground.errors import WeightsError
from rlinf_isaac.ground.reading import open_regular

_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MAX_PICKLE_BYTES = 512_000_000
_MAX_SHARED = 100_000  # how often lists and dicts may be met again: without a bound, few bytes name billions
_MAX_NAME_BYTES = 100_000_000  # all names together: more do not fit into a header of safetensors
_MAX_DEPTH = 50
_CONTAINER = object()
_SAVE_AGAIN = "where it was made, save the tensors alone: torch.save(model.state_dict(), ...), or safetensors"
_COPY_AGAIN = "copy it again, or convert it where it was made"

Keys = tuple[str, ...]


class SameName(ValueError):
    """Two entries of a file have one name once keys are texts, as ``{0: a, "0": b}``; its only argument is the name."""


@dataclass(frozen=True)
class TorchFile:
    """What a file of ``torch.save`` holds.

    Attributes:
        tensors: keys of the containers around a tensor and its own -> tensor, in the order of the file.
        others: how many entries are no tensors.
        storages: all runs of bytes that the file has a checksum for, whether tensors use them or not.
    """

    tensors: dict[Keys, AnyTensor]
    others: int
    storages: tuple[Storage, ...]


def read_torch_file(path: Path, begin: int = 0, length: int | None = None) -> TorchFile:
    """Read a file of ``torch.save``, or one that lies within another file.

    Raises:
        WeightsError: it is damaged, wants to run code, or holds no tensors.
    """
    try:
        with open_regular(path) as file:
            if is_archive(path, begin):
                return _read_zip(path, file, begin, length)
            file.seek(begin)
            return _read_legacy(path, file, os.fstat(file.fileno()).st_size if length is None else begin + length)
    except Forbidden as error:
        cause = f"{path} wants to run {error.args[0]} while it is loaded; that is never allowed"
        raise WeightsError.of("unsafe-pickle", cause, _SAVE_AGAIN) from error
    except pickle.UnpicklingError as error:
        raise WeightsError.of(
            "damaged-pickle", f"{path} is not a pickle of torch.save: {error}", _COPY_AGAIN
        ) from error
    except ForeignArchive as error:
        cause = f"{path} is a zip archive, but not as torch.save writes it: {error}"
        raise WeightsError.of(
            "foreign-archive", cause, "load it in torch where it was made, and save it again"
        ) from error
    except SameName as error:
        cause = f"{path}: two of its entries are called {error.args[0]}, by a number and by a text"
        cure = "where it was made, give one of them another key; names in safetensors are texts"
        raise WeightsError.of("duplicate-names", cause, cure) from error
    except ValueError as error:
        raise WeightsError.of("damaged-torch-file", f"{path} is damaged: {error}", _COPY_AGAIN) from error
    except OSError as error:
        cause = f"{path} cannot be read: {error.strerror}"
        raise WeightsError.of("weights-unreadable", cause, "check its name and permissions") from error


def _read_zip(path: Path, file: BinaryIO, begin: int, length: int | None) -> TorchFile:
    records = read_records(path, begin, length)
    if "constants.pkl" in records or any(name.startswith("code/") for name in records):
        cause = f"{path} is a TorchScript program, not a state dict"
        raise WeightsError.of("torchscript-file", cause, _SAVE_AGAIN)
    if "data.pkl" not in records:
        raise ForeignArchive("it has no data.pkl")
    if "byteorder" in records and _content(file, records["byteorder"]) != sys.byteorder.encode():
        cause = f"{path} was written on a big-endian machine"
        raise WeightsError.of("big-endian", cause, "convert it where it was made")
    storages = {
        name: Storage(path, record.begin, record.size, record.crc32, record.name) for name, record in records.items()
    }

    def storage(key: str, nbytes: int) -> Storage:
        found = storages.get(f"data/{key}")
        if found is None or found.size != nbytes:
            raise ValueError(f"record data/{key} is missing or not as large as its pickle says")
        return found

    content = unpickle.loads(_content(file, records["data.pkl"]))
    tensors, others = _flatten(content, lambda value: _storage(value, storage))
    return TorchFile(tensors, others, tuple(storages.values()))


def _content(file: BinaryIO, record: Record) -> bytes:
    """A small record, checked."""
    if record.size > _MAX_PICKLE_BYTES:
        raise ForeignArchive(f"record {record.name} has {record.size} bytes")
    data = os.pread(file.fileno(), record.size, record.begin)
    if zlib.crc32(data) != record.crc32:
        raise ValueError(f"the checksum of record {record.name} is not that of its bytes")
    return data


def _read_legacy(path: Path, file: BinaryIO, end: int) -> TorchFile:
    """Five pickles (magic, version, system, content, keys of the storages), then each storage: its length, its data."""
    stream = _Bounded(file)
    magic = unpickle.load(stream)  # type: ignore[arg-type]  # of a file it has what unpickling uses
    if magic != _LEGACY_MAGIC or unpickle.load(stream) != _LEGACY_PROTOCOL:  # type: ignore[arg-type]
        raise pickle.UnpicklingError("it does not begin as torch.save begins")
    system = unpickle.load(stream)  # type: ignore[arg-type]
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError.of(
            "big-endian", f"{path} was written on a big-endian machine", "convert it where it was made"
        )
    ids: list[Any] = []
    content = unpickle.load(stream, ids)  # type: ignore[arg-type]
    keys = unpickle.load(stream)  # type: ignore[arg-type]
    # Only the pickle says how large the storages are that follow it.
    used: dict[str, int] = {}
    for each in ids:
        _storage(PersistentId(each), lambda key, nbytes: Storage(path, used.setdefault(key, nbytes), nbytes))
    if not isinstance(keys, list) or used.keys() - {_storage_key(key) for key in keys}:
        raise ValueError("it lacks storages that its tensors use")
    storages: dict[str, Storage] = {}
    at = file.tell()
    for key in map(_storage_key, keys):
        elements = int.from_bytes(os.pread(file.fileno(), 8, at), "little")
        nbytes = used.get(key)
        if nbytes is None or (elements and nbytes % elements) or (not elements and nbytes) or at + 8 + nbytes > end:
            raise ValueError(f"storage {key} is cut off or not as large as its pickle says")
        storages[key] = Storage(path, at + 8, nbytes, None, f"storage {key}")
        at += 8 + nbytes
    if at != end:
        raise ValueError(f"{end - at} bytes follow its last storage")
    tensors, others = _flatten(content, lambda value: _storage(value, lambda key, _: storages[key]))
    return TorchFile(tensors, others, tuple(storages.values()))


class _Bounded:
    """Reads a stream, but never more than a pickle can have: a length in it may claim anything."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MAX_PICKLE_BYTES

    def read(self, size: int) -> bytes:
        self._left -= size
        if size < 0 or self._left < 0:
            raise pickle.UnpicklingError("it claims to be larger than any state dict's pickle")
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(10_000)
        if not line.endswith(b"\n"):  # else the first half of a name would be refused as a name
            raise pickle.UnpicklingError("it was cut off")
        return line


def _storage(value: Any, find: Callable[[str, int], Storage]) -> tuple[Storage, str | None, int]:
    """(storage, dtype or None where it has none, bytes by which a legacy view begins later) of a persistent id."""
    parts = value.value if isinstance(value, PersistentId) else None
    if not isinstance(parts, tuple) or len(parts) not in (5, 6) or parts[0] != "storage":
        raise ValueError("its pickle names a storage that is none")
    kind, key, numel, view = parts[1], _storage_key(parts[2]), parts[4], parts[5] if len(parts) == 6 else None
    dtype = dtype_of(kind)
    if type(numel) is not int or not 0 <= numel < 2**60:
        raise ValueError(f"storage {key} has no number of elements")
    width = BITS.get(dtype or "U8", 0) or _WIDE.get(dtype or "", 8)
    shift = 0
    if view is not None:
        if not isinstance(view, tuple) or len(view) != 3 or type(view[1]) is not int or not 0 <= view[1] < 2**60:
            raise ValueError(f"storage {key} has an unreadable view")
        shift = view[1] * width // 8
    return find(key, numel * width // 8), dtype, shift


def _storage_key(key: Any) -> str:
    if not isinstance(key, str | int) or len(str(key)) > 100:
        raise ValueError("its pickle names a storage that is none")
    return str(key)


# Bits of what safetensors has no name for: the storage's size is still needed.
_WIDE = {"complex128": 128, "complex32": 32, "qint32": 32, "quint4x2": 8, "quint2x4": 8, "qint8": 8, "quint8": 8}


def _flatten(
    content: Any, storage: Callable[[Any], tuple[Storage, str | None, int]]
) -> tuple[dict[Keys, AnyTensor], int]:
    """The tensors in nested dicts and lists, by the keys that lead to them; and the number of other entries."""
    tensors: dict[Keys, AnyTensor] = {}
    others = again = length = 0
    met: set[int] = set()
    todo: list[tuple[Any, Keys, int]] = [(content, (), 0)]
    while todo:
        value, path, path_length = todo.pop()
        inner: Iterable[tuple[Any, Any]] | None = None
        if isinstance(value, dict):
            inner = value.items()
        elif isinstance(value, list | tuple):
            inner = enumerate(value)
        if inner is not None:
            again += id(value) in met
            met.add(id(value))
            if len(path) >= _MAX_DEPTH or again > _MAX_SHARED:
                raise pickle.UnpicklingError("its lists nest too deeply, or have too many entries")
            keys = [(_text(key), each) for key, each in inner]
            todo += [(each, (*path, key), path_length + 1 + len(key)) for key, each in reversed(keys)]
            continue
        tensor = to_tensor(value, storage) if isinstance(value, Call) else None
        if tensor is None:
            others += 1
            continue
        length += path_length
        if path in tensors:
            raise SameName(shown(".".join(path)))
        if length > _MAX_NAME_BYTES:
            raise pickle.UnpicklingError("the names of its tensors are too long")
        tensors[path] = tensor
    return tensors, others


def _text(key: Any) -> str:
    """A key as a part of a name."""
    if not isinstance(key, str | int | float | None):
        raise pickle.UnpicklingError(f"it has a key that is a {type(key).__name__}")
    return str(key)
