"""Datasets as people break them, each with the code under which that must be reported.

Faults that only show when the dataset is compared with a job (`JOB_CASES`: the task's features, rate and prompt) are
found by the preflight; all others (`DATASET_CASES`) lie in the dataset itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from corpus.case import Case

from rlinf_isaac.data.lerobot.format import ACTION, FRONT_IMAGE, STATE, WRIST_IMAGE, image_feature, vector_feature
from rlinf_isaac.data.lerobot.writer import LeRobotWriter
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.media.png import encode_png

LENGTHS = (12, 10, 12)
IMAGE_SIZE = 64
TASK = "stack2"
STATE_LAYOUT = "proprio+cubes"  # that of the preset `tiny`
FIRST, SECOND, THIRD = (f"data/chunk-000/episode_{episode:06d}.parquet" for episode in range(3))


def make_valid(root: Path) -> None:
    """Write a dataset without a fault, which the preset `tiny` accepts for the task `stack2`."""
    rng = np.random.default_rng(0)
    task = contract.TASKS[TASK]
    names = contract.state_names(STATE_LAYOUT, task.num_cubes)
    features = {
        FRONT_IMAGE: image_feature(IMAGE_SIZE, IMAGE_SIZE),
        WRIST_IMAGE: image_feature(IMAGE_SIZE, IMAGE_SIZE),
        STATE: vector_feature(names),
        ACTION: vector_feature(contract.ACTION_NAMES),
    }
    with LeRobotWriter(root, fps=contract.CONTROL_HZ, features=features, robot_type="franka") as writer:
        for length in LENGTHS:
            images = rng.integers(0, 256, (2, length, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
            columns = {
                FRONT_IMAGE: images[0],
                WRIST_IMAGE: images[1],
                STATE: rng.normal(size=(length, len(names))).cumsum(axis=0),
                ACTION: rng.normal(size=(length, contract.ACTION_DIM)),
            }
            writer.add_episode(columns, task.prompt)


def edit_info(**changes: Any) -> Callable[[Path], None]:
    """Change entries of ``meta/info.json``."""

    def edit(root: Path) -> None:
        path = root / "meta" / "info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_feature(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change the description of a feature in ``meta/info.json``."""

    def edit(root: Path) -> None:
        path = root / "meta" / "info.json"
        info = json.loads(path.read_text())
        info["features"][name] |= changes
        path.write_text(json.dumps(info))

    return edit


def edit_lines(name: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Callable[[Path], None]:
    """Change the rows of a JSON lines file in ``meta/``."""

    def edit(root: Path) -> None:
        path = root / "meta" / name
        rows = change([json.loads(line) for line in path.read_text().splitlines()])
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return edit


def edit_table(file: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """Replace a parquet file by `change` of its table."""

    def edit(root: Path) -> None:
        pq.write_table(change(pq.read_table(root / file)), root / file)

    return edit


def edit_column(file: str, name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    """Change the values of a column, as Python objects; the type stays."""

    def changed(table: pa.Table) -> pa.Table:
        values = pa.array(change(table[name].to_pylist()), table[name].type)
        return table.set_column(table.column_names.index(name), table.field(name), values)

    return edit_table(file, changed)


def edit_bytes(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the bytes of a file."""

    def edit(root: Path) -> None:
        (root / file).write_bytes(change((root / file).read_bytes()))

    return edit


def remove(file: str) -> Callable[[Path], None]:
    """Remove a file."""
    return lambda root: (root / file).unlink()


def with_value(row: int, value: Any, entry: int | None = None) -> Callable[[list[Any]], list[Any]]:
    """The column with one value, or one entry of it, replaced."""

    def change(values: list[Any]) -> list[Any]:
        if entry is None:
            return [*values[:row], value, *values[row + 1 :]]
        values[row][entry] = value
        return values

    return change


def as_float64(table: pa.Table) -> pa.Table:
    """The actions in double precision, as numpy gives them when nobody says otherwise."""
    values = table[ACTION].cast(pa.list_(pa.float64(), contract.ACTION_DIM))
    return table.set_column(table.column_names.index(ACTION), ACTION, values)


def with_joint_actions(table: pa.Table) -> pa.Table:
    """Actions with an eighth entry."""
    values = pa.array([[*row, 0.0] for row in table[ACTION].to_pylist()], pa.list_(pa.float32(), 8))
    return table.set_column(table.column_names.index(ACTION), ACTION, values)


def as_datasets_4(table: pa.Table) -> pa.Table:
    """Schema metadata as datasets>=4 writes it."""
    described = table.schema.metadata[b"huggingface"].replace(b'"Sequence"', b'"List"')
    return table.replace_schema_metadata({"huggingface": described})


def without_action(root: Path) -> None:
    """A recorder that forgot the actions, in every place."""
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    del info["features"][ACTION]
    path.write_text(json.dumps(info))
    for file in (FIRST, SECOND, THIRD):
        edit_table(file, lambda table: table.drop_columns([ACTION]))(root)


def with_narrow_state(root: Path) -> None:
    """States of 8 entries without the cubes, as a real robot has them."""
    edit_feature(STATE, shape=[8], names=contract.state_names("proprio", 2))(root)
    for file in (FIRST, SECOND, THIRD):
        cut = pa.list_(pa.float32(), 8)

        def change(table: pa.Table, cut: pa.DataType = cut) -> pa.Table:
            values = pa.array([row[:8] for row in table[STATE].to_pylist()], cut)
            return table.set_column(table.column_names.index(STATE), STATE, values)

        edit_table(file, change)(root)


def at_30_hz(root: Path) -> None:
    """A dataset that is consistent in itself, but of another rate."""
    edit_info(fps=30)(root)
    for file in (FIRST, SECOND, THIRD):
        edit_column(file, "timestamp", lambda values: [frame / 30 for frame in range(len(values))])(root)


def damaged_png(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The third image loses its second half."""
    data = images[2]["bytes"]
    images[2] = {"bytes": data[: len(data) // 2], "path": None}
    return images


def resized_png(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Images of another camera setting."""
    return [{"bytes": encode_png(np.zeros((48, 64, 3), np.uint8)), "path": None} for _ in images]


DATASET_CASES = [
    Case("no info.json", "meta-missing", remove("meta/info.json")),
    Case("damaged info.json", "meta-damaged", edit_bytes("meta/info.json", lambda data: data[:200])),
    Case("info.json without features", "meta-format", edit_info(features=None)),
    Case("unknown version", "dataset-version", edit_info(codebase_version="v1.6")),
    Case("path template that leads out", "path-outside", edit_info(data_path="../other/{episode_index}.parquet")),
    Case("fps that contradicts the timestamps", "timestamps", edit_info(fps=10)),
    Case("fractional fps", "fps-value", edit_info(fps=19.97)),
    Case("column missing in one file", "parquet-columns", edit_table(SECOND, lambda t: t.drop_columns([STATE]))),
    Case("actions in double precision", "feature-dtype", edit_table(SECOND, as_float64)),
    Case("actions of 8 entries", "feature-shape", edit_table(THIRD, with_joint_actions)),
    Case("NaN action", "value-not-finite", edit_column(SECOND, ACTION, with_value(4, float("nan"), entry=2))),
    Case("infinite state", "value-not-finite", edit_column(FIRST, STATE, with_value(7, float("inf"), entry=0))),
    Case("truncated parquet", "parquet-truncated", edit_bytes(SECOND, lambda data: data[: len(data) // 2])),
    Case("empty parquet", "parquet-truncated", edit_bytes(THIRD, lambda data: b"")),
    Case("git-lfs pointer", "not-parquet", edit_bytes(FIRST, lambda data: b"version https://git-lfs.github.com/spec")),
    Case(
        "zeroed pages",
        "parquet-damaged",
        edit_bytes(FIRST, lambda data: data[:4] + bytes(len(data) // 2) + data[4 + len(data) // 2 :]),
    ),
    Case("missing episode file", "parquet-missing", remove(SECOND)),
    Case("episode deleted in meta", "episode-indices", edit_lines("episodes.jsonl", lambda rows: [rows[0], rows[2]])),
    Case("episode listed twice", "episode-indices", edit_lines("episodes.jsonl", lambda rows: [rows[0], *rows])),
    Case("wrong total_frames", "frame-count", edit_info(total_frames=1000)),
    Case("frames cut off", "frame-count", edit_table(THIRD, lambda table: table.slice(0, 5))),
    Case("frame_index with a gap", "frame-index", edit_column(SECOND, "frame_index", with_value(3, 4))),
    Case("episode copied over another", "episode-index", lambda root: _copy(root / FIRST, root / THIRD)),
    Case("empty prompt", "empty-prompt", edit_lines("tasks.jsonl", lambda rows: [rows[0] | {"task": " "}])),
    Case("missing tasks file", "meta-missing", remove("meta/tasks.jsonl")),
    Case("task that is not listed", "task-index", edit_column(FIRST, "task_index", with_value(0, 5))),
    Case("damaged image", "image-damaged", edit_column(FIRST, FRONT_IMAGE, damaged_png)),
    Case("images of another size", "image-size", edit_column(SECOND, WRIST_IMAGE, resized_png)),
    Case("images outside the parquet", "image-by-path", edit_column(FIRST, FRONT_IMAGE, lambda v: _by_path(v))),
]
"""Found by `validate_dataset`."""

WARNING_CASES = [
    Case("written by datasets 4", "hf-list-feature", edit_table(FIRST, as_datasets_4)),
    Case("file that meta does not list", "stray-file", lambda root: _copy(root / FIRST, root / (FIRST + ".parquet"))),
    Case("no episode stats", "no-episodes-stats", remove("meta/episodes_stats.jsonl")),
]
"""Reported by `validate_dataset`, but no reason to refuse the dataset."""

JOB_CASES = [
    Case("no actions", "no-feature", without_action),
    Case("state without the cubes", "feature-dim", with_narrow_state),
    Case("state in another order", "state-layout", edit_feature(STATE, names=["x", *(f"q{n}" for n in range(22))])),
    Case("recorded at 30 Hz", "fps", at_30_hz),
    Case("wrong prompt", "prompt", edit_lines("tasks.jsonl", lambda rows: [rows[0] | {"task": "Open the drawer."}])),
]
"""Found when the dataset is compared with a job."""

CASES = DATASET_CASES + JOB_CASES
"""All that refuse an SFT job."""


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def _by_path(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"bytes": None, "path": f"images/frame_{frame:06d}.png"} for frame in range(len(images))]
