"""Finds the tensors in a file of ``torch.save``, be it a zip archive (torch 1.6 and later) or a legacy file.

Their values are not read, and torch is not imported.

https://github.com/pytorch/pytorch/blob/main/torch/serialization.py (``_save``, ``_legacy_save``)
"""

from __future__ import annotations

import pickle
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from rlinf_isaac.checkpoint.convert import unpickle
from rlinf_isaac.checkpoint.convert.archive import ForeignArchive, Record, Window, is_archive, read_records
from rlinf_isaac.checkpoint.convert.objects import dtype_of, to_tensor
from rlinf_isaac.checkpoint.convert.tensors import AnyTensor, Keys, Storage, StoredTensor, shown
from rlinf_isaac.checkpoint.convert.unpickle import Call, Forbidden, PersistentId
from rlinf_isaac.checkpoint.header import BITS
from rlinf_isaac.ground.errors import WeightsError

_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# How often lists and dicts may be repeated: without a limit, a few bytes could mean billions of entries.
_MAX_SHARED = 100_000
_MAX_NAME_BYTES = 100_000_000  # of all names together: more do not fit into the header of a safetensors file
_MAX_DEPTH = 50
_SAVE_AGAIN = "where it was made, save the tensors alone: torch.save(model.state_dict(), ...), or safetensors"
_COPY_AGAIN = "copy it again, or convert it where it was made"


class SameName(ValueError):
    """Two entries of a file get the same name as texts, like ``{0: a, "0": b}``. The only argument is the name."""


class Part(NamedTuple):
    """A box of a tensor: the index of its first element, its sizes, and the place of a ``torch.save`` file with it."""

    corner: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    offset: int
    length: int


@dataclass(frozen=True)
class TorchFile:
    """The content of a file of ``torch.save``.

    Attributes:
        tensors: the keys that lead to a tensor (of its containers and its own) -> the tensor, in the order of the file.
        others: number of entries that are not tensors.
        records: the runs of bytes that have a checksum, including those that no tensor uses.
        parts: for a distributed checkpoint, name of a tensor -> its parts, from which torch loads it.
    """

    tensors: dict[Keys, AnyTensor]
    others: int
    records: tuple[Record, ...]
    parts: dict[str, tuple[Part, ...]] = field(default_factory=dict)


def read_torch_file(path: Path, begin: int = 0, length: int | None = None) -> TorchFile:
    """The content of a file of ``torch.save``, which may be a part of another file (`begin`, `length`).

    Raises:
        WeightsError: the file is damaged, or wants to run code.
    """
    with refusals(path), Window(path, begin, length) as window:
        return _look_at_zip(path, window) if is_archive(window) else _look_at_legacy(path, window)


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn the exceptions of the block about a file of ``torch.save`` into WeightsErrors with a cause and a cure."""
    try:
        yield
    except Forbidden as error:
        cause = f"{path} wants to run {error.args[0]} while it is loaded; that is never allowed"
        raise WeightsError.of("unsafe-pickle", cause, _SAVE_AGAIN) from error
    except pickle.UnpicklingError as error:
        cause = f"{path} is not a pickle of torch.save: {error}"
        raise WeightsError.of("damaged-pickle", cause, _COPY_AGAIN) from error
    except ForeignArchive as error:
        cause = f"{path} is a zip archive, but not as torch.save writes it: {error}"
        cure = "load it in torch where it was made, and save it again"
        raise WeightsError.of("foreign-archive", cause, cure) from error
    except SameName as error:
        cause = f"{path}: two of its entries are called {error.args[0]}, one by a number and one by a text"
        cure = "where it was made, give one of them another key; names in safetensors are texts"
        raise WeightsError.of("duplicate-names", cause, cure) from error
    except ValueError as error:
        raise WeightsError.of("damaged-torch-file", f"{path} is damaged: {error}", _COPY_AGAIN) from error
    except OSError as error:
        cause = f"{path} cannot be read: {error.strerror}"
        raise WeightsError.of("weights-unreadable", cause, "check its name and permissions") from error


def record_content(window: Window, record: Record) -> bytes:
    """The bytes of a small record, compared with its checksum."""
    if record.size > unpickle.MAX_BYTES:
        raise ForeignArchive(f"record {record.name} has {record.size} bytes")
    data = window.at(record.begin - window.begin, record.size)
    if zlib.crc32(data) != record.crc32:
        raise ValueError(f"the checksum of record {record.name} is not that of its bytes")
    return data


def _look_at_zip(path: Path, window: Window) -> TorchFile:
    records = read_records(path, window)
    if "constants.pkl" in records or any(name.startswith("code/") for name in records):
        cause = f"{path} is a TorchScript program, not a state dict"
        raise WeightsError.of("torchscript-file", cause, _SAVE_AGAIN)
    if "data.pkl" not in records:
        raise ForeignArchive("it has no data.pkl")
    if "byteorder" in records and record_content(window, records["byteorder"]) != sys.byteorder.encode():
        raise _big_endian(path)

    def find(key: str, nbytes: int) -> Storage:
        found = records.get(f"data/{key}")
        if found is None or found.size != nbytes:
            raise ValueError(f"record data/{key} is missing or not as large as its pickle says")
        return Storage(path, found.name, nbytes)

    content = unpickle.loads(record_content(window, records["data.pkl"]))
    tensors, others = _flatten(content, lambda value: _storage(value, find))
    return TorchFile(tensors, others, tuple(records.values()))


def _look_at_legacy(path: Path, window: Window) -> TorchFile:
    """Read a legacy file: pickles of magic, version, system, content and storage keys, then the storages themselves."""
    window.seek(0)
    if unpickle.load(window) != _LEGACY_MAGIC or unpickle.load(window) != _LEGACY_PROTOCOL:
        raise pickle.UnpicklingError("it does not begin like a file of torch.save")
    system = unpickle.load(window)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _big_endian(path)
    used: dict[str, int] = {}  # only the content says how large the storages after it are
    content = unpickle.load(window)
    tensors, others = _flatten(
        content, lambda value: _storage(value, lambda key, size: Storage(path, key, used.setdefault(key, size)))
    )
    keys = unpickle.load(window)
    if not isinstance(keys, list) or used.keys() - (stored := {_storage_key(key) for key in keys}):
        raise ValueError("it lacks storages that its tensors use")
    rest, needed = window.size - window.tell(), sum(8 + used.get(key, 0) for key in stored)
    if rest < needed or (rest > needed and stored == used.keys()):
        raise ValueError(f"its storages take {needed} bytes, and {rest} follow its pickles")
    return TorchFile(tensors, others, ())


def _big_endian(path: Path) -> WeightsError:
    return WeightsError.of("big-endian", f"{path} was written on a big-endian machine", "convert it where it was made")


def _storage(value: Any, find: Callable[[str, int], Storage]) -> tuple[Storage, str | None]:
    """The storage that a persistent id ``("storage", class, key, location, elements)`` names, and its dtype, if any."""
    parts = value.value if isinstance(value, PersistentId) else None
    if not isinstance(parts, tuple) or len(parts) not in (5, 6) or parts[0] != "storage":
        raise ValueError("its pickle has an invalid name of a storage")
    dtype, key, numel = dtype_of(parts[1]), _storage_key(parts[2]), parts[4]
    if type(numel) is not int or not 0 <= numel < 2**60:
        raise ValueError(f"storage {key} has no number of elements")
    if len(parts) == 6 and parts[5] is not None:
        raise ValueError(f"storage {key} is a view of another one, which torch has not written since 0.4")
    return find(key, numel * (BITS.get(dtype or "U8", 0) or _WIDE.get(dtype or "", 8)) // 8), dtype


def _storage_key(key: Any) -> str:
    if not isinstance(key, str | int) or len(str(key)) > 100:
        raise ValueError("its pickle has an invalid name of a storage")
    return str(key)


# Bits of dtypes that safetensors does not have. The size of their storages is needed nevertheless.
_WIDE = {"complex128": 128, "complex32": 32, "qint32": 32, "quint4x2": 8, "quint2x4": 8, "qint8": 8, "quint8": 8}


def _flatten(content: Any, storage: Callable[[Any], tuple[Storage, str | None]]) -> tuple[dict[Keys, AnyTensor], int]:
    """The tensors in nested dicts and lists with the keys that lead to them, and the number of other entries."""
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
        tensors[path] = replace(tensor, keys=path) if isinstance(tensor, StoredTensor) else tensor
    return tensors, others


def _text(key: Any) -> str:
    """A key as a text, which becomes a part of a name."""
    if not isinstance(key, str | int | float | None):
        raise pickle.UnpicklingError(f"it has a key that is a {type(key).__name__}")
    return str(key)
