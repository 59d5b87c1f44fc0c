"""Reads ``meta/`` of a LeRobot dataset, v2.1 or v3.0: features, tasks, and the files that hold each episode's frames.

| | v2.1 | v3.0 |
|---|---|---|
| episodes | meta/episodes.jsonl | meta/episodes/chunk-000/file-000.parquet, with the file that holds each episode |
| tasks | meta/tasks.jsonl | meta/tasks.parquet, the task is the pandas index |
| data | one parquet per episode | many episodes per parquet |
| videos | one mp4 per episode and camera | many episodes per mp4, each from a timestamp on |
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlinf_isaac.data.lerobot.files import RESTORE, read_json, read_json_lines, read_parquet, read_texts
from rlinf_isaac.data.lerobot.folded_findings import SHOWN, first_few
from rlinf_isaac.data.lerobot.format import CHUNKS_SIZE, READ_VERSIONS, Feature
from rlinf_isaac.data.lerobot.path_template import PathTemplate
from rlinf_isaac.data.lerobot.resolve import INFO_FILE
from rlinf_isaac.ground.errors import DatasetError, Problem

MAX_FPS = 10_000


@dataclass(frozen=True)
class RecordedEpisode:
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
    """The content of ``meta/``, not compared with the data files. Episodes are in order of their index."""

    version: str
    fps: int
    robot_type: str | None
    features: dict[str, Feature]
    episodes: tuple[RecordedEpisode, ...]
    tasks: dict[int, str]
    provenance: dict[str, Any] | None


def read_meta(root: Path) -> DatasetMeta:
    """Read ``meta/`` of the dataset at `root`.

    Raises:
        DatasetError: a file is missing or damaged, the version is unknown, or the counts contradict each other.
    """
    info = read_info(root)
    features, fps = parse_features(root, info), parse_fps(root, info)
    episodes, tasks = read_episodes(root, info, features), read_tasks(root, info["codebase_version"])
    if problems := check_counts(root, info, episodes):
        raise DatasetError(problems)
    provenance = root / "meta" / "provenance.json"
    return DatasetMeta(
        version=info["codebase_version"],
        fps=fps,
        robot_type=info.get("robot_type"),
        features=features,
        episodes=tuple(episodes),
        tasks=dict(tasks),
        provenance=read_json(provenance) if provenance.exists() else None,
    )


_OTHERWISE = "convert the dataset to v2.1 or v3.0 with the release of lerobot that has written it, or the next one"
_CONVERT = {
    "v2.0": "pip install lerobot==0.3.3 in an environment of its own, and there "
    "python -m lerobot.datasets.v21.convert_dataset_v20_to_v21 --repo-id ORG/NAME, which reads the dataset from "
    "the hub and writes v2.1 to it",
}


def read_info(root: Path) -> dict[str, Any]:
    """Reads ``meta/info.json``. Raises DatasetError, also for a version that is not supported."""
    path = root / INFO_FILE
    info = read_json(path)
    if info.get("codebase_version") not in READ_VERSIONS:
        cause = f"{path}: codebase_version {info.get('codebase_version')!r} is not one of {READ_VERSIONS}"
        raise DatasetError.of("dataset-version", cause, _CONVERT.get(str(info.get("codebase_version")), _OTHERWISE))
    return info


def parse_features(root: Path, info: dict[str, Any]) -> dict[str, Feature]:
    """The features that ``meta/info.json`` describes. Raises DatasetError."""
    with _format_errors(root / INFO_FILE):
        features = {
            name: Feature(
                str(value["dtype"]),
                _shape(value["shape"]),
                _names(value.get("names")),
                grouped=isinstance(value.get("names"), dict),
            )
            for name, value in info["features"].items()
        }
        if not features:
            raise ValueError("there are no features")
        return features


def parse_fps(root: Path, info: dict[str, Any]) -> int:
    """Frames per second, a whole number. Raises DatasetError."""
    with _format_errors(root / INFO_FILE):
        fps = int(info["fps"])
        if fps == info["fps"] and 1 <= fps <= MAX_FPS:
            return fps
    cause = f"{root / INFO_FILE}: fps is {info['fps']}, not a whole number above 0 (and at most {MAX_FPS})"
    raise DatasetError.of("fps-value", cause, "set it to the rate at which the frames were recorded")


def read_episodes(root: Path, info: dict[str, Any], features: Mapping[str, Feature]) -> list[RecordedEpisode]:
    """The episodes that ``meta/`` lists, in order of their index; not yet checked for gaps. Raises DatasetError."""
    video_keys = [name for name, feature in features.items() if feature.dtype == "video"]
    read = _read_episodes_v21 if info["codebase_version"] == "v2.1" else _read_episodes_v30
    with _format_errors(root / "meta"):
        return sorted(read(root, info, video_keys), key=lambda episode: episode.index)


def read_tasks(root: Path, version: str) -> list[tuple[int, str]]:
    """(task_index, instruction) of every task that ``meta/`` lists, duplicates included. Raises DatasetError."""
    with _format_errors(root / "meta"):
        if version == "v2.1":
            rows = [(row["task_index"], row["task"]) for row in read_json_lines(root / "meta" / "tasks.jsonl")]
        else:
            table = read_texts(root / "meta" / "tasks.parquet")
            (task_column,) = set(table) - {"task_index"}  # "__index_level_0__" or "task", as pandas named the index
            rows = list(zip(table["task_index"], table[task_column], strict=True))
        for index, task in rows:
            if not isinstance(task, str):
                raise TypeError(f"task {index!r} is {task!r}")
            _count(index)
        return rows


def check_counts(root: Path, info: dict[str, Any], episodes: Sequence[RecordedEpisode]) -> list[Problem]:
    """Compares the totals in ``meta/info.json`` with the listed episodes, whose indices must be 0, 1, 2, ..."""
    path, problems = root / INFO_FILE, []
    if not episodes:
        return [Problem("no-episodes", f"{root / 'meta'} lists no episodes", "record at least one episode")]
    indices = [episode.index for episode in episodes]
    if indices != list(range(len(indices))) or info.get("total_episodes") != len(indices):
        duplicated = [index for index, count in Counter(indices).items() if count > 1]
        present = set(indices)
        missing = list(islice((index for index in range(indices[-1]) if index not in present), SHOWN))
        cause = (
            f"{path}: total_episodes is {info.get('total_episodes')}, but the episodes listed in meta/ are "
            f"{len(indices)} from {indices[0]} to {indices[-1]}"
            + (f", {first_few(duplicated)} more than once" if duplicated else "")
            + (f", without {', '.join(map(str, missing))}" if missing else "")
            + (", ..." if len(missing) == SHOWN else "")
        )
        cure = "restore meta/, or write the dataset again without them; the dataset was cut or edited"
        problems.append(Problem("episode-indices", cause, cure))
    frames = sum(episode.length for episode in episodes)
    if info.get("total_frames") != frames:
        cause = f"{path}: total_frames is {info.get('total_frames')}, but the episodes listed in meta/ sum to {frames}"
        problems.append(Problem("frame-count", cause, "restore meta/; the dataset was cut or edited"))
    if empty := [episode.index for episode in episodes if episode.length < 1]:
        cause = f"{root / 'meta'} lists episodes without frames: {first_few(empty)}"
        problems.append(Problem("no-frames", cause, "write the dataset again without them"))
    return problems


def _read_episodes_v21(root: Path, info: dict[str, Any], video_keys: list[str]) -> Iterator[RecordedEpisode]:
    chunks_size, (data, videos) = _count(info.get("chunks_size", CHUNKS_SIZE)), _templates(info, video_keys)
    for row in read_json_lines(root / "meta" / "episodes.jsonl"):
        index, length = _count(row["episode_index"]), _count(row["length"])
        place = {"episode_index": index, "episode_chunk": index // chunks_size}
        films = {key: (videos.fill({**place, "video_key": key}), 0.0) for key in video_keys}
        yield RecordedEpisode(index, length, data.fill(place), films)


def _read_episodes_v30(root: Path, info: dict[str, Any], video_keys: list[str]) -> Iterator[RecordedEpisode]:
    data, videos = _templates(info, video_keys)
    columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    for key in video_keys:
        columns += [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
    files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise DatasetError.of("meta-missing", f"{root / 'meta' / 'episodes'} has no parquet file", RESTORE)
    for row in (row for file in files for row in _numbers(read_parquet(file, columns))):
        index, length = _count(row["episode_index"]), _count(row["length"])
        place = {name: _count(row[f"data/{name}"]) for name in ("chunk_index", "file_index")}
        films = {}
        for key in video_keys:
            at = {name: _count(row[f"videos/{key}/{name}"]) for name in ("chunk_index", "file_index")}
            start = float(row[f"videos/{key}/from_timestamp"])
            if not 0 <= start < math.inf:
                raise ValueError(f"episode {index} starts at {start} s of its video")
            films[key] = (videos.fill({**at, "video_key": key}), start)
        yield RecordedEpisode(index, length, data.fill(place), films)


def _numbers(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table whose columns are all numeric. Texts are refused: one stored text could be in every row."""
    for field in table.schema:
        if not pa.types.is_integer(field.type) and not pa.types.is_floating(field.type):
            raise TypeError(f"{field.name} is stored as {field.type}")
    return table.to_pylist()


def _templates(info: dict[str, Any], video_keys: list[str]) -> tuple[PathTemplate, PathTemplate]:
    """The templates of the paths of data and of videos. Without videos the entry ``video_path`` is not read."""
    version = info["codebase_version"]
    data = PathTemplate(info["data_path"], "data_path", version)
    return data, PathTemplate(info["video_path"], "video_path", version) if video_keys else data


@contextmanager
def _format_errors(path: Path) -> Iterator[None]:
    """Turns exceptions while values are taken from JSON into a DatasetError that names `path`."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, ZeroDivisionError) as error:
        cause = f"{path}: not the LeRobot format ({type(error).__name__}: {error})"
        raise DatasetError.of("meta-format", cause, RESTORE) from error


def _count(value: Any) -> int:
    """An index or a length. A larger number than a hundred billion must be damage, and loops up to it would not end."""
    if isinstance(value, bool) or not 0 <= operator.index(value) < 10**11:
        raise ValueError(f"{value!r} is not an index or length")
    return operator.index(value)


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(operator.index(size) for size in value)
    if min(shape, default=1) < 1:
        raise ValueError(f"a feature's shape is {value}")
    return shape


def _names(value: Any) -> tuple[str, ...] | None:
    """The names of a feature, which LeRobot writes as a list, a dict (``{"motors": [...]}``), or null."""
    if isinstance(value, dict):
        value = [name for group in value.values() for name in (group if isinstance(group, list) else [group])]
    return tuple(str(name) for name in value) if value else None
