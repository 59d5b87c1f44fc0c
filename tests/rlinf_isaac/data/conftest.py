"""Small datasets, as fixtures that are functions: v2.1 by our writer, v3.0 by a minimal writer of that format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlinf_isaac.data.lerobot.format import (
    ACTION,
    AUX_FEATURES,
    FRONT_IMAGE,
    STATE,
    WRIST_IMAGE,
    Feature,
    image_feature,
    vector_feature,
)
from rlinf_isaac.data.lerobot.writer import LeRobotWriter
from rlinf_isaac.media.png import encode_png

FEATURES = {
    FRONT_IMAGE: image_feature(8, 10),
    WRIST_IMAGE: image_feature(8, 10),
    STATE: vector_feature(["x", "y", "gripper"]),
    ACTION: vector_feature(["dx", "dy"]),
}
FPS = 20


def random_episodes(lengths, features=FEATURES, seed=0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    draw = {
        "image": lambda shape: rng.integers(0, 256, shape, dtype=np.uint8),
        "float32": lambda shape: rng.normal(size=shape).astype(np.float32),
    }
    return [
        {name: draw[feature.dtype]((length, *feature.shape)) for name, feature in features.items()}
        for length in lengths
    ]


def write_v21(root: Path, episodes, features=FEATURES, tasks=("Stack the cubes",), **options) -> Path:
    with LeRobotWriter(root, fps=FPS, features=features, robot_type="franka", **options) as writer:
        for number, episode in enumerate(episodes):
            writer.add_episode(episode, tasks[number % len(tasks)])
    return root


def write_v30(root: Path, episodes, features=FEATURES, tasks=("Stack the cubes",), episodes_per_file=2) -> Path:
    """The same in LeRobot's v3.0: several episodes per file, episode metadata in parquet."""
    root.mkdir(parents=True)
    rows, total, pending = [], 0, []
    for number, episode in enumerate(episodes):
        length, task = len(episode[ACTION]), number % len(tasks)
        frames = np.arange(length)
        columns = {
            "timestamp": (frames / FPS).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(length, number),
            "index": frames + total,
            "task_index": np.full(length, task),
        }
        for name, feature in features.items():
            if feature.dtype == "image":
                columns[name] = pa.array([{"bytes": encode_png(image), "path": None} for image in episode[name]])
            else:
                columns[name] = pa.array(episode[name].tolist(), pa.list_(pa.float32(), feature.shape[0]))
        file_index = number // episodes_per_file
        rows.append(
            {
                "episode_index": number,
                "tasks": [tasks[task]],
                "length": length,
                "data/chunk_index": 0,
                "data/file_index": file_index,
                "dataset_from_index": total,
                "dataset_to_index": total + length,
            }
        )
        total += length
        pending.append(pa.table(columns))
        if (number + 1) % episodes_per_file == 0 or number + 1 == len(episodes):
            path = root / f"data/chunk-000/file-{file_index:03d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.concat_tables(pending), path, row_group_size=7)
            pending = []
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    pd.DataFrame({"task_index": range(len(tasks))}, index=list(tasks)).to_parquet(root / "meta/tasks.parquet")
    info = {
        "codebase_version": "v3.0",
        "robot_type": "franka",
        "total_episodes": len(rows),
        "total_frames": total,
        "total_tasks": len(tasks),
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "fps": FPS,
        "splits": {"train": f"0:{len(rows)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": {name: feature.as_dict() for name, feature in {**features, **AUX_FEATURES}.items()},
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


WRITERS = {"v2.1": write_v21, "v3.0": write_v30}


@pytest.fixture(scope="session")
def features() -> dict[str, Feature]:
    return dict(FEATURES)


@pytest.fixture(scope="session", name="random_episodes")
def _random_episodes():
    return random_episodes


@pytest.fixture(scope="session", name="write_v21")
def _write_v21():
    return write_v21


@pytest.fixture(scope="session", name="write_v30")
def _write_v30():
    return write_v30


@pytest.fixture(scope="session", name="edit_json")
def _edit_json():
    return edit_json


@pytest.fixture(params=WRITERS)
def version(request) -> str:
    return request.param


@pytest.fixture
def dataset_root(tmp_path, version) -> Path:
    """A dataset of 3 episodes (5, 12 and 1 frames) with two tasks, in each version."""
    return WRITERS[version](
        tmp_path / "home" / "owner" / "data", random_episodes([5, 12, 1]), tasks=("Stack", "Un\u2028stack")
    )


@pytest.fixture
def v21_root(tmp_path) -> Path:
    return write_v21(tmp_path / "home" / "owner" / "data", random_episodes([5, 12, 1]), extra={"seed": 3})
