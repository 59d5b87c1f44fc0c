"""Reads a LeRobot dataset (v2.1 or v3.0) with only pyarrow and Pillow: columns as arrays, images on demand.

Opening reads ``meta/`` and the footer of every parquet file, so that a truncated file or a wrong count is found before
work begins. Reading numeric columns does not read images. Images that were read are cached in memory: decoded, if all
images of a camera fit into the budget, because training reads them many times; otherwise compressed, by row group, and
the least recently used row groups are dropped.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlinf_isaac.data.lerobot.dataset_digest import dataset_digest
from rlinf_isaac.data.lerobot.files import RESTORE, open_parquet, parquet_errors, read_parquet
from rlinf_isaac.data.lerobot.format import ACTION, Feature
from rlinf_isaac.data.lerobot.meta import read_meta
from rlinf_isaac.data.lerobot.resolve import DatasetLocation, resolve_dataset
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.media.png import decode_image


class _Decoded(NamedTuple):
    """Decoded images of one camera (num_frames, height, width, 3), and which of them are filled in, (num_frames,)."""

    images: np.ndarray
    filled: np.ndarray


class LeRobotDataset:
    """A dataset, addressed by the global frame index 0 .. num_frames - 1 (episode after episode).

    Args:
        location: a `DatasetLocation`, or the argument of `resolve_dataset`.
        image_cache_bytes: size of the cache of compressed images in bytes, and again of that of decoded images.

    Attributes:
        root: the dataset's directory.
        version: ``v2.1`` or ``v3.0``.
        fps: control rate in Hz.
        features: name -> `Feature`, auxiliary columns included.
        num_frames, num_episodes: totals.
        provenance: ``meta/provenance.json`` (where the data came from), or None.
        episode_lengths, episode_starts: (num_episodes,) int64; frames, and global index of the first frame.
        row_weights: always None; a `Mixture` has the weight of each frame here.

    Raises:
        DatasetError: meta and files contradict each other, or a file is missing or damaged.
    """

    row_weights: np.ndarray | None = None

    def __init__(self, location: DatasetLocation | str | Path, *, image_cache_bytes: int = 2 << 30) -> None:
        self.location = location if isinstance(location, DatasetLocation) else resolve_dataset(location)
        self.root = self.location.root
        meta = read_meta(self.root)
        self.version: str = meta.version
        self.fps: int = meta.fps
        self.features: dict[str, Feature] = meta.features
        self.provenance: dict[str, Any] | None = meta.provenance
        self.tasks: dict[int, str] = meta.tasks
        self.episode_lengths = np.array([episode.length for episode in meta.episodes], np.int64)
        self.episode_starts = np.cumsum(self.episode_lengths) - self.episode_lengths
        self.num_frames = int(self.episode_lengths.sum())
        self.num_episodes = len(meta.episodes)
        self._episodes = meta.episodes
        self._footers = self._check_footers()
        self._row_groups = [(file, n) for file, footer in self._footers.items() for n in range(footer.num_row_groups)]
        rows = [self._footers[file].row_group(n).num_rows for file, n in self._row_groups]
        self._row_group_starts = np.cumsum(rows) - rows
        self._columns: dict[str, np.ndarray] = {}
        self._images: OrderedDict[tuple[str, int], pa.Array] = OrderedDict()
        self._decoded: dict[str, _Decoded | None] = {}  # camera -> its images; None if they do not fit into the cache
        self._image_bytes = 0
        self._image_cache_bytes = image_cache_bytes

    def for_one_of(self, users: int) -> LeRobotDataset:
        """A copy for one of `users` processes, or parts of a mixture, which share the memory for cached images."""
        copied = copy(self)
        copied._image_cache_bytes //= users
        return copied

    @cached_property
    def digest(self) -> str:
        """sha256 over names and bytes of meta/, data/ and videos/. It is the same for every copy of the dataset."""
        return dataset_digest(self.root)

    def column(self, name: str) -> np.ndarray:
        """A numeric feature of all frames, (num_frames, dim) in its stored dtype. The array is cached and read-only."""
        if name not in self._columns:
            feature = self._feature(name)
            if feature.is_visual:
                cause = f"feature {name!r} holds images, not numbers"
                raise DatasetError.of("feature-kind", cause, "use image() or images()")
            self._columns[name] = self.read_columns([name])[name]
            self._columns[name].flags.writeable = False
        return self._columns[name]

    def read_columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Several numeric features in one pass over the files, each (num_frames, dim). They are not cached."""
        features = {name: self._feature(name) for name in names}
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for file, footer in self._footers.items():
            table = read_parquet(self.root / file, list(names), footer)
            for name, feature in features.items():
                try:
                    parts[name].append(to_numpy(table[name], feature))
                except DatasetError as error:
                    raise _located(f"{self.root / file}: {name}", error) from error
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def episode_of(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Episode index of each global frame index."""
        indices = self._check_indices(indices)
        return np.searchsorted(self.episode_starts, indices, side="right") - 1

    def prompt(self, index: int) -> str:
        """The instruction of a frame, looked up by its ``task_index``."""
        self._check_indices([index])
        task_index = int(self.column("task_index")[index, 0])
        if task_index not in self.tasks:
            cause = f"{self.root}: frame {index} has task_index {task_index}, which meta/tasks does not list"
            raise DatasetError.of("task-index", cause, "restore meta/tasks")
        return self.tasks[task_index]

    def action_chunks(self, indices: Sequence[int] | np.ndarray, horizon: int, key: str = ACTION) -> np.ndarray:
        """The next `horizon` actions from each frame on, (n, horizon, dim).

        Past the end of an episode its last action is repeated, as LeRobot's ``delta_timestamps`` does for OpenPI.
        """
        indices = self._check_indices(indices)
        episodes = self.episode_of(indices)
        last = (self.episode_starts + self.episode_lengths - 1)[episodes]
        return self.column(key)[np.minimum(indices[:, None] + np.arange(horizon), last[:, None])]

    def image(self, key: str, index: int) -> np.ndarray:
        """One camera image, uint8 (height, width, 3)."""
        return self.images(key, [index])[0]

    def images(self, key: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Camera images of several frames, uint8 (n, height, width, 3), in the order of `indices`."""
        feature, indices = self._feature(key), self._check_indices(indices)
        if feature.dtype == "video":
            return self._video_frames(key, indices)
        if feature.dtype != "image":
            cause = f"feature {key!r} has dtype {feature.dtype}, it holds no images"
            raise DatasetError.of("feature-kind", cause, "use column()")
        if key not in self._decoded and indices.size:
            self._decoded[key] = self._room_for(key, int(indices[0]))
        cache = self._decoded.get(key)
        if cache is None:
            return np.stack([self._decode(key, int(index)) for index in indices])
        for index in indices[~cache.filled[indices]]:
            image = self._decode(key, int(index))
            if image.shape != (shape := cache.images.shape[1:]):
                cause = f"{self.root}: {key} of frame {index} has the shape {image.shape}, others {shape}"
                raise DatasetError.of("image-size", cause, RESTORE)
            cache.images[index], cache.filled[index] = image, True
        return cache.images[indices]

    def _room_for(self, key: str, index: int) -> _Decoded | None:
        """An empty cache for the decoded images of a camera, all as large as frame `index`; None if it is too large."""
        shape = (self.num_frames, *self._decode(key, index).shape)
        taken = sum(cache.images.nbytes for cache in self._decoded.values() if cache is not None)
        if taken + math.prod(shape) > self._image_cache_bytes:
            return None
        return _Decoded(np.empty(shape, np.uint8), np.zeros(self.num_frames, bool))

    def __getstate__(self) -> dict[str, Any]:
        # Cached images are not pickled: another process reads and decodes those that it needs.
        return self.__dict__ | {"_decoded": {}, "_images": OrderedDict(), "_image_bytes": 0}

    def _decode(self, key: str, index: int) -> np.ndarray:
        group = int(np.searchsorted(self._row_group_starts, index, side="right")) - 1
        data = self._compressed(key, group)[index - self._row_group_starts[group]].as_py()
        if data is None:
            cause = f"{self.root}: {key} of frame {index} is a path, not bytes"
            raise DatasetError.of("image-by-path", cause, "write the images' bytes into the parquet files")
        try:
            return decode_image(data)
        except DatasetError as error:
            raise _located(f"{self.root / self._row_groups[group][0]}: {key} of frame {index}", error) from error

    def _compressed(self, key: str, group: int) -> pa.Array:
        """Image bytes of one row group, from the cache or from disk. The least recently used row groups are dropped."""
        if (key, group) in self._images:
            self._images.move_to_end((key, group))
            return self._images[key, group]
        file, number = self._row_groups[group]
        with parquet_errors(self.root / file):
            parquet = open_parquet(self.root / file, self._footers[file])
            column = parquet.read_row_group(number, columns=[key])[key]
        images = column.combine_chunks().field("bytes")
        self._images[key, group] = images
        self._image_bytes += images.nbytes
        while self._image_bytes > self._image_cache_bytes and len(self._images) > 1:
            self._image_bytes -= self._images.popitem(last=False)[1].nbytes
        return images

    def _video_frames(self, key: str, indices: np.ndarray) -> np.ndarray:
        from rlinf_isaac.data.lerobot.video_frames import read_frames  # PyAV is an extra

        timestamps = self.column("timestamp")[indices, 0].astype(np.float64)
        episodes = self.episode_of(indices)
        places = [self._episodes[episode].videos[key] for episode in episodes]
        timestamps += np.array([start for _, start in places])
        frames = np.empty((len(indices), *self._feature(key).shape), np.uint8)
        for file in dict.fromkeys(file for file, _ in places):
            in_file = np.array([place[0] == file for place in places])
            frames[in_file] = read_frames(self.root / file, timestamps[in_file], tolerance_s=0.5 / self.fps)
        return frames

    def _feature(self, name: str) -> Feature:
        if name not in self.features:
            cause = f"{self.root} has no feature {name!r}; it has {', '.join(sorted(self.features))}"
            raise DatasetError.of("no-feature", cause, "name one of these, or rename the dataset's features")
        return self.features[name]

    def _check_indices(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        checked = np.asarray(indices, dtype=np.int64).reshape(-1)
        if checked.size and (checked.min() < 0 or checked.max() >= self.num_frames):
            raise IndexError(f"frame index {checked.min()} or {checked.max()} is outside 0..{self.num_frames - 1}")
        return checked

    def _check_footers(self) -> dict[str, pq.FileMetaData]:
        """Compares the parquet footers with meta/. Returns the footers by file, in the order of the episodes."""
        frames: dict[str, int] = {}
        for episode in self._episodes:
            frames[episode.file] = frames.get(episode.file, 0) + episode.length
        stored = {name for name, feature in self.features.items() if feature.dtype != "video"}
        footers: dict[str, pq.FileMetaData] = {}
        checked_schema = None
        for file, expected in frames.items():
            path = self.root / file
            with parquet_errors(path):
                footer = open_parquet(path).metadata
            if footer.num_rows != expected:
                cause = f"{path} holds {footer.num_rows} frames, but meta/ says {expected}"
                raise DatasetError.of("frame-count", cause, RESTORE)
            if checked_schema is None or not footer.schema.equals(checked_schema):
                if missing := stored - set(footer.schema.to_arrow_schema().names):
                    cause = f"{path} lacks the columns {sorted(missing)} that meta/info.json lists"
                    raise DatasetError.of("parquet-columns", cause, RESTORE)
                checked_schema = footer.schema
            footers[file] = footer
        return footers


def _located(place: str, error: DatasetError) -> DatasetError:
    """The same error with the place in front of each cause."""
    return DatasetError([replace(problem, cause=f"{place}: {problem.cause}") for problem in error.problems])


def to_numpy(column: pa.ChunkedArray, feature: Feature) -> np.ndarray:
    """(rows, dim) of a scalar or (nested) list column; multi-dimensional features are flattened.

    Raises:
        DatasetError: a row is null or not of the feature's shape.
    """
    array, rows, whole = column.combine_chunks(), len(column), True
    while pa.types.is_nested(array.type):
        whole &= array.null_count == 0
        if not pa.types.is_fixed_size_list(array.type):
            whole &= len(pc.unique(pc.list_value_length(array))) == 1
        array = array.flatten()
    if not whole or array.null_count or len(array) != rows * math.prod(feature.shape):
        cause = f"rows of type {column.type} are null, ragged, or not of the feature's shape {feature.shape}"
        raise DatasetError.of("feature-shape", cause, RESTORE)
    return array.to_numpy(zero_copy_only=False).reshape(rows, -1)
