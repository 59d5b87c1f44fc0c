"""Reads the arrays of an orbax checkpoint with tensorstore. Neither jax nor orbax is imported.

orbax stores each array of a tree as a zarr array, whose name is the path in the tree joined by dots. Each array has a
directory of its own or, since 2024, all are in one database of tensorstore (OCDBT, which has a file
``manifest.ocdbt``). ``_METADATA`` lists the paths:

    {"tree_metadata": {...: {"key_metadata": [{"key": ...}], "value_metadata": {"value_type": ...}}},
     "use_zarr3": bool, "store_array_data_equal_to_fill_value": bool}

Source: https://github.com/google/orbax, checkpoint/orbax/checkpoint/_src/{metadata/tree.py,serialization/
{serialization,tensorstore_utils}.py}; https://google.github.io/tensorstore (drivers zarr, zarr3, ocdbt).

Reading a part of an array decodes every chunk that the part touches. OpenPI stacks the layers of a network into one
array. If several layers share a chunk, each of them would decode it again; such an array is therefore decoded once,
into a temporary file, if there is room for it. Memory holds one chunk and one part of an array at a time.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlinf_isaac.checkpoint.convert.tensors import DTYPES, shown
from rlinf_isaac.checkpoint.header import BITS
from rlinf_isaac.checkpoint.jax import METADATA
from rlinf_isaac.ground.errors import WeightsError
from rlinf_isaac.ground.reading import read_json

if TYPE_CHECKING:
    import numpy as np

_MAX_METADATA_BYTES = 50_000_000
_ARRAYS = ("jax.Array", "np.ndarray")
_AGAIN = "copy the checkpoint again, complete"
_MARGIN = 1 << 30
_MOST_ARRAYS = 20_000
_MOST_BYTES = 1 << 40


@dataclass(frozen=True)
class OrbaxArray:
    """One array of a checkpoint.

    Attributes:
        store: the store that holds the array.
        name: name of the array in the store: its path in the tree, joined by dots.
        dtype: safetensors' name of the dtype.
        shape: sizes of the axes.
        chunk: sizes of the part that is decoded at once.
    """

    store: OrbaxStore
    name: str
    dtype: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]

    @property
    def shares_chunks(self) -> bool:
        """Whether a chunk holds several entries of the first axis."""
        return len(self.shape) > 1 and self.chunk[0] > 1

    def read(self, index: tuple[int, ...] = ()) -> np.ndarray:
        """The part of the array at these indices of its first axes. bfloat16 has the type of ml_dtypes.

        Raises:
            WeightsError: ``jax-checkpoint``, the array is damaged or a part of it is missing.
        """
        return self.store.read(self, index)


class OrbaxStore:
    """The arrays in one directory of orbax.

    Args:
        files: the files that `jax.jax_files` finds.

    Raises:
        WeightsError: ``no-tensorstore``, tensorstore is not installed; ``jax-checkpoint``, the checkpoint is damaged,
            or orbax did not write it.
    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        self.files = files
        self.directory = files[0].parent
        try:
            import tensorstore
        except ImportError as error:
            cause = f"{self.directory} holds a JAX checkpoint, and tensorstore is needed to read it: {error}"
            raise WeightsError.of("no-tensorstore", cause, "run pip install 'rlinf-isaac[jax]'") from error
        self._tensorstore = tensorstore
        self._opened: dict[str, Any] = {}
        self._decoded: dict[str, np.ndarray | None] = {}
        self.others = 0
        metadata = self._metadata()
        self._driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
        # Otherwise orbax may have left out a chunk because it holds only zeros.
        self._all_stored = metadata.get("store_array_data_equal_to_fill_value") is True
        self._ocdbt = (self.directory / "manifest.ocdbt").is_file()
        self.arrays = {path: self._array(".".join(path)) for path in self._paths(metadata["tree_metadata"])}

    def read(self, array: OrbaxArray, index: tuple[int, ...]) -> np.ndarray:
        """A part of an array; see `OrbaxArray.read`."""
        import numpy as np

        try:
            if index and array.shares_chunks:
                if array.name not in self._decoded:
                    self._decoded[array.name] = self._decode(array)
                if (decoded := self._decoded[array.name]) is not None:
                    return np.asarray(decoded[index])
            if array.name not in self._opened:
                self._opened[array.name] = self._open(array.name, self._context)
            return np.asarray(self._opened[array.name][index].read().result())
        except (ValueError, OSError) as error:
            raise self._damaged(f"{shown(array.name)} cannot be read: {_first_line(error)}") from error

    def _decode(self, array: OrbaxArray) -> np.ndarray | None:
        """The array, decoded into a temporary file without a name; None if there is no room for it."""
        import numpy as np

        opened = self._open(array.name, None)
        dtype = opened.dtype.numpy_dtype
        if shutil.disk_usage(tempfile.gettempdir()).free < math.prod(array.shape) * dtype.itemsize + _MARGIN:
            return None
        with suppress(OSError), tempfile.TemporaryFile() as file:
            for begin in range(0, array.shape[0], array.chunk[0]):
                rows = opened[begin : min(begin + array.chunk[0], array.shape[0])].read().result()
                file.write(np.ascontiguousarray(rows).reshape(-1).view("u1").data)
            file.flush()
            return np.memmap(file, dtype, "r", shape=array.shape)
        return None

    @cached_property
    def _context(self) -> Any:
        """A context that caches the chunk that was decoded last, because the parts of one layer may share it."""
        sizes = [
            math.prod(each.chunk) * BITS[each.dtype] // 8 for each in self.arrays.values() if not each.shares_chunks
        ]
        return self._tensorstore.Context({"cache_pool": {"total_bytes_limit": max(sizes, default=0)}})

    def _metadata(self) -> Mapping[str, Any]:
        try:
            metadata = read_json(self.directory / METADATA, _MAX_METADATA_BYTES)
            if not isinstance(metadata["tree_metadata"], dict):
                raise ValueError("tree_metadata is not an object")
            return metadata
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"{METADATA} is not as orbax writes it: {_first_line(error)}") from error

    def _paths(self, tree: Mapping[str, Any]) -> list[tuple[str, ...]]:
        paths = []
        try:
            for entry in tree.values():
                if entry["value_metadata"]["value_type"] in _ARRAYS:
                    paths.append(tuple(str(each["key"]) for each in entry["key_metadata"]))
                    paths[-1][0]  # raises an IndexError for an empty path, which no array of a tree has
                else:
                    self.others += 1
        except (LookupError, TypeError) as error:
            raise self._damaged(f"{METADATA} is not as orbax writes it: {error!r}") from error
        if len(paths) > _MOST_ARRAYS:
            raise self._damaged(f"{METADATA} lists {len(paths)} arrays, more than any model has")
        return paths

    def _array(self, name: str) -> OrbaxArray:
        try:
            opened = self._open(name, None)
        except (ValueError, OSError) as error:
            raise self._damaged(
                f"{METADATA} names {shown(name)}, which cannot be read: {_first_line(error)}"
            ) from error
        if opened.dtype.name not in DTYPES:
            raise self._damaged(f"{shown(name)} is of the type {opened.dtype.name}, which no model has")
        shape = tuple(opened.shape)
        if math.prod(shape) * opened.dtype.numpy_dtype.itemsize > _MOST_BYTES:
            raise self._damaged(f"{shown(name)} is of the shape {list(shape)}, larger than any array of a model")
        chunk = tuple(map(min, opened.chunk_layout.read_chunk.shape or shape, shape))
        return OrbaxArray(self, name, DTYPES[opened.dtype.name], shape, chunk)

    def _open(self, name: str, context: Any) -> Any:
        if not self._ocdbt and ("/" in name or name.startswith("..")):
            raise ValueError("it is not the name of a directory")
        store: dict[str, Any] = {"driver": "file", "path": f"{self.directory.absolute()}/"}
        if self._ocdbt:
            store = {"driver": "ocdbt", "base": store, "path": f"{name}/"}
        else:
            store["path"] += f"{name}/"
        spec = {"driver": self._driver, "kvstore": store, "fill_missing_data_reads": not self._all_stored}
        return self._tensorstore.open(spec, context=context, open=True, read=True).result()

    def _damaged(self, what: str) -> WeightsError:
        return WeightsError.of("jax-checkpoint", f"{self.directory}: {what}", _AGAIN)


def _first_line(error: Exception) -> str:
    """The first line of an exception's text, without the details that tensorstore adds about its call."""
    text = str(error).partition(" [")[0].strip() or repr(error)
    return shown(text.splitlines()[0])
