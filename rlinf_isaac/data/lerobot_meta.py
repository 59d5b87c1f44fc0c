"""``meta/`` of a LeRobot dataset, v2.1 and v3.0 alike: features, tasks, and where each episode's frames lie.

| | v2.1 | v3.0 |
|---|---|---|
| episodes | meta/episodes.jsonl | meta/episodes/chunk-000/file-000.parquet, with the file that holds each episode |
| tasks | meta/tasks.jsonl | meta/tasks.parquet, the task is the pandas index |
| data | one parquet per episode | many episodes per parquet |
| videos | one mp4 per episode and camera | many episodes per mp4, each from a timestamp on |
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlinf_isaac.data.lerobot_format import CHUNKS_SIZE, READ_VERSIONS, Feature
from rlinf_isaac.errors import DatasetError


@dataclass(frozen=True)
class Episode:
    """One episode.

    Attributes:
        index: 0-based.
        length: frames.
        file: parquet file with its frames, relative to the dataset.
        videos: video feature -> (mp4 relative to the dataset, second at which the episode starts in it).
    """

    index: int
    length: int
    file: str
    videos: dict[str, tuple[str, float]]


@dataclass(frozen=True)
class DatasetMeta:
    """What ``meta/`` says; not yet compared with the data files. Episodes are in order of their index."""

    version: str
    fps: int
    robot_type: str | None
    features: dict[str, Feature]
    episodes: tuple[Episode, ...]
    tasks: dict[int, str]
    provenance: dict[str, Any] | None


def read_meta(root: Path) -> DatasetMeta:
    """Read ``meta/`` of the dataset at `root`.

    Raises:
        DatasetError: a file is missing or damaged, the version is unknown, or the counts contradict each other.
    """
    info = read_json(root / "meta" / "info.json")
    path = root / "meta" / "info.json"
    version = info.get("codebase_version")
    if version not in READ_VERSIONS:
        raise DatasetError(
            f"{path}: codebase_version {version!r} is not one of {READ_VERSIONS}; convert it with lerobot"
        )
    try:
        features = {
            name: Feature(value["dtype"], tuple(value["shape"]), _names(value.get("names")))
            for name, value in info["features"].items()
        }
        video_keys = [name for name, feature in features.items() if feature.dtype == "video"]
        read = _read_v21 if version == "v2.1" else _read_v30
        episodes, tasks = read(root, info, video_keys)
        fps, total_episodes, total_frames = int(info["fps"]), info["total_episodes"], info["total_frames"]
        if fps != info["fps"] or fps < 1:
            raise ValueError(f"fps is {info['fps']}, not a whole number above 0")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DatasetError(f"{root / 'meta'}: not the {version} format ({type(error).__name__}: {error})") from error
    if [episode.index for episode in episodes] != list(range(total_episodes)):
        raise DatasetError(
            f"{path}: total_episodes is {total_episodes}, but the episodes listed in meta/ are "
            f"{_ranges([episode.index for episode in episodes])}; the dataset was cut or edited"
        )
    frames = sum(episode.length for episode in episodes)
    if frames != total_frames:
        raise DatasetError(f"{path}: total_frames is {total_frames}, but the episodes listed in meta/ sum to {frames}")
    if not episodes or min(episode.length for episode in episodes) < 1:
        raise DatasetError(f"{path}: there are no episodes, or an episode without frames")
    provenance = root / "meta" / "provenance.json"
    return DatasetMeta(
        version=version,
        fps=fps,
        robot_type=info.get("robot_type"),
        features=features,
        episodes=tuple(episodes),
        tasks=tasks,
        provenance=read_json(provenance) if provenance.exists() else None,
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises DatasetError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is not readable JSON ({error}); the file is damaged") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


def read_parquet(path: Path, columns: list[str] | None = None, footer: pq.FileMetaData | None = None) -> pa.Table:
    """A parquet file, whose `footer` may have been read before.

    Raises:
        DatasetError: the file is missing, truncated, damaged, or lacks a column.
    """
    try:
        file = pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)
        table = file.read(columns=columns, use_threads=False)  # threads cost more than they bring on files this small
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing") from error
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is not readable parquet ({error}); the file is truncated or damaged") from error
    if columns and (missing := set(columns) - set(table.column_names)):
        raise DatasetError(f"{path} has no column {', '.join(sorted(missing))}")
    return table


def _read_v21(root: Path, info: dict[str, Any], video_keys: list[str]) -> tuple[list[Episode], dict[int, str]]:
    tasks = {row["task_index"]: row["task"] for row in _read_json_lines(root / "meta" / "tasks.jsonl")}
    chunks_size = info.get("chunks_size", CHUNKS_SIZE)
    episodes = []
    for row in _read_json_lines(root / "meta" / "episodes.jsonl"):
        index = row["episode_index"]
        place = {"episode_index": index, "episode_chunk": index // chunks_size}
        videos = {key: (_path(info["video_path"], video_key=key, **place), 0.0) for key in video_keys}
        episodes.append(Episode(index, row["length"], _path(info["data_path"], **place), videos))
    return sorted(episodes, key=lambda episode: episode.index), tasks


def _read_v30(root: Path, info: dict[str, Any], video_keys: list[str]) -> tuple[list[Episode], dict[int, str]]:
    table = read_parquet(root / "meta" / "tasks.parquet").to_pydict()
    (task_column,) = set(table) - {"task_index"}  # "__index_level_0__" or "task", as pandas named the index
    tasks = dict(zip(table["task_index"], table[task_column], strict=True))
    columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    for key in video_keys:
        columns += [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
    episodes = []
    files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise DatasetError(f"{root / 'meta' / 'episodes'} has no parquet file")
    for row in (row for file in files for row in read_parquet(file, columns).to_pylist()):
        data = _path(info["data_path"], chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        videos = {}
        for key in video_keys:
            at = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
            videos[key] = (_path(info["video_path"], video_key=key, **at), row[f"videos/{key}/from_timestamp"])
        episodes.append(Episode(row["episode_index"], row["length"], data, videos))
    return sorted(episodes, key=lambda episode: episode.index), tasks


def _path(template: str, **values: Any) -> str:
    """A path template of info.json, filled in. It is data from outside, so it may not lead out of the dataset."""
    path = PurePosixPath(template.format(**values))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the path {template!r} leads out of the dataset")
    return str(path)


def _read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would also split at U+2028
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is missing or unreadable ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{path}, line {number}: not JSON ({error}); the file is damaged") from error


def _names(value: Any) -> tuple[str, ...] | None:
    """LeRobot writes names as a list, a dict (``{"motors": [...]}``), or null."""
    if isinstance(value, dict):
        value = [name for group in value.values() for name in (group if isinstance(group, list) else [group])]
    return tuple(str(name) for name in value) if value else None


def _ranges(indices: list[int]) -> str:
    return f"{len(indices)} from {indices[0]} to {indices[-1]}" if indices else "none"
