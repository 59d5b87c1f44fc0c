from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.data.lerobot import writer as lerobot_writer
from rlinf_isaac.data.lerobot.format import (
    ACTION,
    FRONT_IMAGE,
    STATE,
    WRIST_IMAGE,
    Feature,
    image_feature,
    vector_feature,
)
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.lerobot.writer import LeRobotWriter
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.media.png import encode_png

SMALL = {STATE: vector_feature(["x", "y"]), "count": vector_feature(["n"], "int64")}


def small_episode(length: int = 3) -> dict[str, np.ndarray]:
    return {STATE: np.zeros((length, 2), np.float32), "count": np.arange(length)[:, None]}


def write_small(root: Path, episode, features=SMALL, task="Stack", fps=20, **options) -> None:
    with LeRobotWriter(root, fps=fps, features=features, robot_type="franka", **options) as writer:
        writer.add_episode(episode, task)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_meta_of_a_v21_dataset(tmp_path, random_episodes, write_v21):
    root = write_v21(tmp_path / "a" / "data", random_episodes([5, 3, 4]), tasks=("Stack", "Lift"), extra={"seed": 1})
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v2.1"
    totals = {name: value for name, value in info.items() if name.startswith("total_")}
    assert totals == {
        "total_episodes": 3,
        "total_frames": 12,
        "total_tasks": 2,
        "total_videos": 0,
        "total_chunks": 1,
    }
    assert info["fps"] == 20
    assert info["splits"] == {"train": "0:3"}
    assert info["features"][STATE] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "gripper"]}
    assert info["features"][FRONT_IMAGE]["shape"] == [8, 10, 3]
    assert info["features"]["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    assert read_lines(root / "meta/tasks.jsonl") == [
        {"task_index": 0, "task": "Stack"},
        {"task_index": 1, "task": "Lift"},
    ]
    assert read_lines(root / "meta/episodes.jsonl")[1] == {"episode_index": 1, "tasks": ["Lift"], "length": 3}
    assert json.loads((root / "meta/provenance.json").read_text()) == {"seed": 1}
    assert sorted(path.name for path in (root / "data/chunk-000").iterdir()) == [
        f"episode_00000{number}.parquet" for number in range(3)
    ]


def test_auxiliary_columns(tmp_path, random_episodes, write_v21):
    root = write_v21(tmp_path / "data", random_episodes([5, 3]))
    table = pq.read_table(root / "data/chunk-000/episode_000001.parquet")
    assert table["index"].to_pylist() == [5, 6, 7]
    assert table["frame_index"].to_pylist() == [0, 1, 2]
    assert table["episode_index"].to_pylist() == [1, 1, 1]
    assert table["task_index"].to_pylist() == [0, 0, 0]
    assert np.allclose(table["timestamp"].to_numpy(), [0, 0.05, 0.1])


def test_episode_stats(tmp_path, random_episodes, write_v21):
    episodes = random_episodes([12])
    stats = read_lines(write_v21(tmp_path / "data", episodes) / "meta/episodes_stats.jsonl")[0]["stats"]
    action, image = episodes[0][ACTION].astype(np.float64), episodes[0][FRONT_IMAGE] / 255
    assert np.allclose(stats[ACTION]["mean"], action.mean(0))
    assert np.allclose(stats[ACTION]["std"], action.std(0))
    assert stats[ACTION]["count"] == [12]
    assert np.shape(stats[FRONT_IMAGE]["min"]) == (3, 1, 1)
    assert np.allclose(np.ravel(stats[FRONT_IMAGE]["mean"]), image.mean((0, 1, 2)))
    assert stats["index"]["max"] == [11]


def test_episodes_beyond_the_chunk_size_go_to_the_next_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_writer, "CHUNKS_SIZE", 4)  # 1000 in real datasets
    with LeRobotWriter(tmp_path / "data", fps=20, features=SMALL, robot_type="franka") as writer:
        for length in range(1, 6):
            writer.add_episode(small_episode(length), "Stack")
    assert (tmp_path / "data/data/chunk-001/episode_000004.parquet").exists()
    assert json.loads((tmp_path / "data/meta/info.json").read_text())["total_chunks"] == 2
    assert LeRobotDataset(tmp_path / "data").episode_lengths.tolist() == [1, 2, 3, 4, 5]


@settings(deadline=None, max_examples=20)
@given(lengths=st.lists(st.integers(1, 130), min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_round_trip(lengths, seed, features, random_episodes, write_v21):
    episodes = random_episodes(lengths, seed=seed)
    tasks = [f"task {number % 2} \u2028 ä" for number in range(len(lengths))]
    with tempfile.TemporaryDirectory() as directory:
        dataset = LeRobotDataset(write_v21(Path(directory) / "data", episodes, tasks=tasks))
        assert dataset.episode_lengths.tolist() == lengths
        for name in (STATE, ACTION):
            expected = np.concatenate([episode[name] for episode in episodes])
            assert dataset.column(name).dtype == np.float32
            assert np.array_equal(dataset.column(name), expected)
        everything = np.random.default_rng(seed).permutation(dataset.num_frames)
        for name in (FRONT_IMAGE, WRIST_IMAGE):
            expected = np.concatenate([episode[name] for episode in episodes])
            assert np.array_equal(dataset.images(name, everything), expected[everything])
        assert [dataset.prompt(start) for start in dataset.episode_starts] == tasks


def test_images_encoded_by_worker_processes_give_the_same_dataset(tmp_path, random_episodes, write_v21):
    episodes = random_episodes([5, 3])
    plain = write_v21(tmp_path / "plain", episodes)
    with ProcessPoolExecutor(1) as pool:
        encoded = [
            episode | {name: list(pool.map(encode_png, episode[name])) for name in (FRONT_IMAGE, WRIST_IMAGE)}
            for episode in episodes
        ]
    assert LeRobotDataset(write_v21(tmp_path / "encoded", encoded)).digest == LeRobotDataset(plain).digest


def test_float64_is_stored_in_the_features_dtype(tmp_path):
    write_small(tmp_path / "data", small_episode() | {STATE: np.full((3, 2), 0.1)})
    state = LeRobotDataset(tmp_path / "data").column(STATE)
    assert state.dtype == np.float32
    assert (state == np.float32(0.1)).all()


NAN = np.zeros((3, 2), np.float32)
NAN[1, 0] = np.nan
BROKEN_EPISODES = {
    "missing [*]'count'": {STATE: np.zeros((3, 2), np.float32)},
    "not among the features [*]'extra'": small_episode() | {"extra": np.zeros((3, 1))},
    "one common length": small_episode() | {"count": np.arange(2)[:, None]},
    "above 0": small_episode(0),
    "says [(]2,[)]": small_episode() | {STATE: np.zeros((3, 3), np.float32)},
    "shape [(][)]": small_episode() | {"count": np.arange(3)},
    "float64 cannot be stored as int64": small_episode() | {"count": np.zeros((3, 1))},
    "does not fit|cannot be stored": small_episode() | {"count": np.full((3, 1), 2**63, np.uint64)},
    "frame 1, entry 0 is nan": small_episode() | {STATE: NAN},
    "is 1e[+]300; every value must be finite": small_episode() | {STATE: np.full((3, 2), 1e300)},
}


@pytest.mark.parametrize("message", BROKEN_EPISODES)
def test_broken_episodes_are_refused_and_nothing_is_written(tmp_path, message):
    with pytest.raises(DatasetError, match=message.replace("[*]", r"\[")):
        write_small(tmp_path / "data", BROKEN_EPISODES[message])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 4, 5, 3), np.uint8), "images of shape"),
        (np.zeros((3, 4, 4, 3), np.float32), "must be a uint8 array"),
        ([encode_png(np.zeros((4, 5, 3), np.uint8))] * 3, "frame 0 is a PNG of shape"),
        ([b"jpeg"] * 3, "not a whole PNG"),
        ([encode_png(np.zeros((4, 4, 3), np.uint8))] * 2, "one common length"),
    ],
)
def test_broken_images(tmp_path, images, message):
    features = SMALL | {FRONT_IMAGE: image_feature(4, 4)}
    with pytest.raises(DatasetError, match=message):
        write_small(tmp_path / "data", small_episode() | {FRONT_IMAGE: images}, features=features)


@pytest.mark.parametrize(
    ("name", "feature", "message"),
    [
        ("index", vector_feature(["x"], "int64"), "auxiliary column"),
        ("observation/state", vector_feature(["x"]), "reserves"),
        (STATE, Feature("string", (1,)), "dtype 'string'"),
        (STATE, Feature("float32", (2, 2)), "vector of shape"),
        (STATE, Feature("float32", (2,), ("x",)), "has 1 names"),
        (FRONT_IMAGE, Feature("image", (3, 8, 8)), "must have shape"),
        (FRONT_IMAGE, Feature("video", (8, 8, 3)), "dtype 'video'"),
    ],
)
def test_features_that_cannot_be_written(tmp_path, name, feature, message):
    with pytest.raises(DatasetError, match=message):
        LeRobotWriter(tmp_path / "data", fps=20, features={name: feature}, robot_type="franka")


def test_other_wrong_uses(tmp_path):
    with pytest.raises(DatasetError, match="fps must be positive"):
        write_small(tmp_path / "data", small_episode(), fps=0)
    with pytest.raises(DatasetError, match="task of an episode is empty"):
        write_small(tmp_path / "data", small_episode(), task=" ")
    with pytest.raises(DatasetError, match="extra is not JSON"):
        write_small(tmp_path / "data", small_episode(), extra={"lr": float("nan")})
    with (
        pytest.raises(DatasetError, match="no episode was added"),
        LeRobotWriter(tmp_path / "data", fps=20, features=SMALL, robot_type="franka"),
    ):
        pass
    with pytest.raises(DatasetError, match="outside the writer's with block"):
        LeRobotWriter(tmp_path / "data", fps=20, features=SMALL, robot_type="franka").add_episode({}, "Stack")
    assert list(tmp_path.iterdir()) == []


def test_existing_dataset_is_kept_unless_replaced(tmp_path):
    write_small(tmp_path / "data", small_episode(3))
    with pytest.raises(FileExistsError):
        write_small(tmp_path / "data", small_episode(4))
    assert LeRobotDataset(tmp_path / "data").num_frames == 3
    write_small(tmp_path / "data", small_episode(4), replace=True)
    assert LeRobotDataset(tmp_path / "data").num_frames == 4


def test_kill_leaves_nothing_and_the_next_writer_cleans_up(tmp_path):
    code = """
import sys, numpy as np
from rlinf_isaac.data.lerobot.format import vector_feature
from rlinf_isaac.data.lerobot.writer import LeRobotWriter
features = {"observation.state": vector_feature(["x", "y"])}
with LeRobotWriter(sys.argv[1], fps=20, features=features, robot_type="franka") as writer:
    while True:
        print(writer.add_episode({"observation.state": np.zeros((50, 2))}, "Stack"), flush=True)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    for episodes in (1, 3, 7):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for number in range(episodes):
            assert child.stdout.readline() == f"{number}\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not (tmp_path / "data").exists()
        assert len(list(tmp_path.iterdir())) == 1, "the leftover of this writer, not those of the ones before"
    write_small(tmp_path / "data", small_episode())
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
