"""Writes a LeRobot v2.1 dataset, the version that OpenPI and RLinf pin, with only pyarrow and Pillow.

Each episode is one parquet file with images as PNG inside it. The dataset is written atomically: to a temporary
directory beside `root`, which is renamed when the ``with`` block ends without an exception.

    with LeRobotWriter(root, fps=20, features=features, robot_type="franka") as writer:
        writer.add_episode({"observation.images.front": images, "observation.state": state, "action": action}, task)

To use several processes, let them encode (`png.encode_png`) and hand lists of PNG bytes to the one writer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlinf_isaac.data.lerobot.format import (
    AUX_FEATURES,
    CHUNKS_SIZE,
    DATA_PATH,
    IMAGE_TYPE,
    NUMERIC_DTYPES,
    WRITTEN_VERSION,
    Feature,
    huggingface_metadata,
)
from rlinf_isaac.ground.atomic import new_directory
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.media.png import decode_image, encode_png, png_shape

ROW_GROUP_SIZE = 100  # frames per row group with images, as in `datasets`; to read one frame, a reader loads its group
IMAGES_IN_STATS = 16  # frames per episode and camera from which image statistics are computed

Column = np.ndarray | Sequence[bytes]


class LeRobotWriter:
    """Context manager that writes one dataset at `root`. See the module docstring.

    Args:
        root: final directory of the dataset; must not exist unless `replace`.
        fps: control rate in Hz; timestamps are frame_index / fps.
        features: name -> `Feature` (``image`` or numeric vectors); the auxiliary columns are added by the writer.
        robot_type: written to ``meta/info.json``.
        extra: origin of the data (any JSON object); written to ``meta/provenance.json`` if it is not empty.
        replace: replace an existing dataset at `root`, once the new one is complete.

    Raises:
        DatasetError: a feature or an episode is not writable; the message names the column.
        FileExistsError: `root` exists and `replace` is False.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        fps: int,
        features: Mapping[str, Feature],
        robot_type: str | None,
        extra: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> None:
        self.root = Path(root)
        self.fps = int(fps)
        self.features = dict(features)
        self._all_features = {**features, **AUX_FEATURES}
        self.robot_type = robot_type
        self.extra = dict(extra or {})
        self._replace = replace
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._episodes_stats: list[dict[str, Any]] = []
        self._num_frames = 0
        self._directory: Path | None = None
        self._exit_stack = ExitStack()
        if self.fps <= 0:
            raise DatasetError.of("fps-value", f"fps must be positive, not {fps}", "give the control rate in Hz")
        for name, feature in self.features.items():
            _check_feature(name, feature)
        _json_text(self.extra, "extra")

    def __enter__(self) -> LeRobotWriter:
        self._directory = self._exit_stack.enter_context(new_directory(self.root, replace=self._replace))
        (self._directory / "meta").mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            with self._exit_stack:  # renames the directory; removes it if writing meta/ fails
                self._write_meta()
        else:
            self._exit_stack.__exit__(kind, error, traceback)

    def add_episode(self, columns: Mapping[str, Column], task: str) -> int:
        """Validate and write one episode; returns its index.

        Args:
            columns: every feature's frames: numeric (n, dim); images uint8 (n, height, width, 3) or n PNG byte strings.
                Arrays are converted to the feature's dtype if that has the same kind (floating-point or integer).
            task: the instruction, written to ``meta/tasks.jsonl``.

        Raises:
            DatasetError: columns are missing or surplus, differ in length, have the wrong shape or kind, or have NaN or
                infinite values.
        """
        if self._directory is None:
            cause = "add_episode was called outside the writer's with block"
            raise DatasetError.of("writer-closed", cause, "write `with LeRobotWriter(...) as writer:` around it")
        if not task.strip():
            cause = "the task of an episode is empty, but policies are conditioned on it"
            raise DatasetError.of("empty-prompt", cause, "give the instruction that the episode follows")
        length = self._check_columns(columns)
        episode = len(self._episodes)
        task_index = self._tasks.get(task, len(self._tasks))
        arrays: dict[str, pa.Array] = {}
        stats: dict[str, Any] = {}
        for name, feature in self.features.items():
            if feature.dtype == "image":
                pngs = _as_pngs(name, feature, columns[name])
                arrays[name] = pa.array([{"bytes": png, "path": None} for png in pngs], IMAGE_TYPE)
                stats[name] = _image_stats(pngs)
            else:
                values = _as_numeric(name, feature, np.asarray(columns[name]))
                arrays[name], stats[name] = _arrow_column(feature, values), _numeric_stats(values)
        for name, values in self._aux_columns(length, episode, task_index).items():
            arrays[name], stats[name] = pa.array(values), _numeric_stats(values.reshape(-1, 1))

        path = self._directory / DATA_PATH.format(episode_chunk=episode // CHUNKS_SIZE, episode_index=episode)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table(arrays).replace_schema_metadata(huggingface_metadata(self._all_features))
        rows = ROW_GROUP_SIZE if any(feature.is_visual for feature in self.features.values()) else None
        pq.write_table(table, path, row_group_size=rows, use_dictionary=False, write_page_checksum=True)
        self._tasks[task] = task_index
        self._episodes.append({"episode_index": episode, "tasks": [task], "length": length})
        self._episodes_stats.append({"episode_index": episode, "stats": stats})
        self._num_frames += length
        return episode

    def _check_columns(self, columns: Mapping[str, Column]) -> int:
        """Checks that the columns are those of the features, and returns their common length."""
        missing, surplus = self.features.keys() - columns.keys(), columns.keys() - self.features.keys()
        if missing or surplus:
            cause = f"episode columns: missing {sorted(missing)}, not among the features {sorted(surplus)}"
            raise DatasetError.of("episode-columns", cause, "give every feature's frames and nothing else")
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
            cause = f"the columns of an episode must have one common length above 0, not {lengths}"
            raise DatasetError.of("episode-length", cause, "record every feature in every frame")
        return next(iter(lengths.values()))

    def _aux_columns(self, length: int, episode: int, task_index: int) -> dict[str, np.ndarray]:
        frames = np.arange(length, dtype=np.int64)
        return {
            "timestamp": (frames / self.fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(length, episode, np.int64),
            "index": frames + self._num_frames,
            "task_index": np.full(length, task_index, np.int64),
        }

    def _write_meta(self) -> None:
        assert self._directory is not None
        if not self._episodes:
            cause = f"no episode was added to {self.root}"
            raise DatasetError.of("no-episodes", cause, "record at least one episode")
        total = len(self._episodes)
        info = {
            "codebase_version": WRITTEN_VERSION,
            "robot_type": self.robot_type,
            "total_episodes": total,
            "total_frames": self._num_frames,
            "total_tasks": len(self._tasks),
            "total_videos": 0,
            "total_chunks": (total - 1) // CHUNKS_SIZE + 1,
            "chunks_size": CHUNKS_SIZE,
            "fps": self.fps,
            "splits": {"train": f"0:{total}"},
            "data_path": DATA_PATH,
            "video_path": None,
            "features": {name: feature.as_dict() for name, feature in self._all_features.items()},
        }
        tasks = [{"task_index": index, "task": task} for task, index in self._tasks.items()]
        meta = self._directory / "meta"
        (meta / "info.json").write_text(json.dumps(info, indent=4))
        (meta / "tasks.jsonl").write_text(_json_lines(tasks))
        (meta / "episodes.jsonl").write_text(_json_lines(self._episodes))
        (meta / "episodes_stats.jsonl").write_text(_json_lines(self._episodes_stats))
        if self.extra:
            (meta / "provenance.json").write_text(_json_text(self.extra, "extra"))


def _check_feature(name: str, feature: Feature) -> None:
    if name in AUX_FEATURES:
        cause = f"feature {name!r} is an auxiliary column that the writer fills in"
        raise DatasetError.of("feature-name", cause, "leave it out of the features")
    if "/" in name:
        raise DatasetError.of("feature-name", f"feature {name!r} contains '/', which LeRobot reserves", "use '.'")
    if feature.dtype == "image":
        if len(feature.shape) != 3 or feature.shape[2] != 3 or min(feature.shape) < 1:
            cause = f"image feature {name!r} must have shape (height, width, 3), not {feature.shape}"
            raise DatasetError.of("feature-shape", cause, "describe images as height, width, channels")
    elif feature.dtype not in NUMERIC_DTYPES:
        cause = f"feature {name!r} has dtype {feature.dtype!r}, which the writer does not know"
        raise DatasetError.of("feature-dtype", cause, f"use image or one of {', '.join(NUMERIC_DTYPES)}")
    elif len(feature.shape) != 1 or feature.shape[0] < 1:
        cause = f"numeric feature {name!r} must be a vector of shape (dim,), not {feature.shape}"
        raise DatasetError.of("feature-shape", cause, "flatten it")
    if feature.names is not None and len(feature.names) != (
        len(feature.shape) if feature.is_visual else feature.shape[0]
    ):
        cause = f"feature {name!r} of shape {feature.shape} has {len(feature.names)} names"
        raise DatasetError.of("feature-names", cause, "name every entry, or none")


def _as_numeric(name: str, feature: Feature, values: np.ndarray) -> np.ndarray:
    """`values` (n, dim) in the feature's dtype. Conversions that would lose data, such as float to int, are refused."""
    if values.ndim != 2 or values.shape[1:] != feature.shape:
        cause = f"{name}: frames of shape {values.shape[1:]}, but the feature says {feature.shape}"
        raise DatasetError.of("feature-shape", cause, "give an array (frames, dim)")
    dtype = np.dtype(feature.dtype)
    if not np.can_cast(values.dtype, dtype, casting="same_kind"):
        cause = f"{name}: {values.dtype} cannot be stored as {dtype} without loss"
        raise DatasetError.of("feature-dtype", cause, "convert it first, or change the feature's dtype")
    with np.errstate(over="ignore"):
        converted = values.astype(dtype)
    if not np.isfinite(converted).all():
        frame, entry = np.argwhere(~np.isfinite(converted))[0]
        cause = f"{name}: frame {frame}, entry {entry} is {values[frame, entry]}; every value must be finite"
        raise DatasetError.of("value-not-finite", cause, "find out why it was recorded, or leave the episode out")
    if dtype.kind == "i" and not np.array_equal(converted, values):
        cause = f"{name}: a value does not fit into {dtype}"
        raise DatasetError.of("feature-dtype", cause, "choose a wider dtype for the feature")
    return converted


def _as_pngs(name: str, feature: Feature, images: Column) -> list[bytes]:
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        if images.shape[1:] != feature.shape:
            cause = f"{name}: images of shape {images.shape[1:]}, but the feature says {feature.shape}"
            raise DatasetError.of("image-size", cause, "resize the images, or change the feature")
        return [encode_png(image) for image in images]
    pngs = list(images)
    if not all(isinstance(png, bytes) for png in pngs):
        cause = f"{name}: images must be a uint8 array (n, height, width, 3) or n PNG byte strings"
        raise DatasetError.of("image-array", cause, "scale images to 0-255, or encode them with encode_png")
    for frame, png in enumerate(pngs):
        if (shape := png_shape(png)) != feature.shape:
            cause = f"{name}: frame {frame} is a PNG of shape {shape}, but the feature says {feature.shape}"
            raise DatasetError.of("image-size", cause, "resize the images, or change the feature")
    return pngs


def _arrow_column(feature: Feature, values: np.ndarray) -> pa.Array:
    flat = pa.array(values.reshape(-1))
    return flat if feature.shape == (1,) else pa.FixedSizeListArray.from_arrays(flat, feature.shape[0])


def _numeric_stats(values: np.ndarray) -> dict[str, list[float]]:
    return _stats(values.astype(np.float64), axes=(0,))


def _image_stats(pngs: list[bytes]) -> dict[str, Any]:
    """Statistics per channel in [0, 1], with LeRobot's shape (3, 1, 1), from evenly spaced frames (as in LeRobot)."""
    sampled = np.unique(np.linspace(0, len(pngs) - 1, IMAGES_IN_STATS).round().astype(int))
    pixels = np.stack([decode_image(pngs[frame]) for frame in sampled]).astype(np.float64) / 255
    stats = _stats(pixels, axes=(0, 1, 2))
    return {name: value if name == "count" else np.reshape(value, (3, 1, 1)).tolist() for name, value in stats.items()}


def _stats(values: np.ndarray, axes: tuple[int, ...]) -> dict[str, list[float]]:
    """min, max, mean, std over `axes`, and the number of frames: one entry of ``meta/episodes_stats.jsonl``."""
    stats = [values.min(axes), values.max(axes), values.mean(axes), values.std(axes)]
    return {name: array.tolist() for name, array in zip(("min", "max", "mean", "std"), stats, strict=True)} | {
        "count": [len(values)]
    }


def _json_lines(values: Sequence[Any]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def _json_text(value: Any, name: str) -> str:
    try:
        return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DatasetError.of(
            "not-json", f"{name} is not JSON: {error}", "use plain JSON values without NaN"
        ) from error
