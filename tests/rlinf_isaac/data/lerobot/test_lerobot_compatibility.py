"""Our datasets in the real ``lerobot``, and the real one's datasets in our reader. Nothing contacts the hub.

Each ``lerobot`` knows one codebase version: 0.3.x and OpenPI's pinned commit 0cf8648 v2.1, 0.4.x v3.0. So this is run
twice, in the interpreters that README makes with the extras openpi and lerobot (CONTRIBUTING.md, "Opt-in tests"):

    openpi-venv/bin/python -m pytest -m lerobot tests/rlinf_isaac/data/lerobot/test_lerobot_compatibility.py
    lerobot-venv/bin/python -m pytest -m lerobot tests/rlinf_isaac/data/lerobot/test_lerobot_compatibility.py
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from rlinf_isaac.data.lerobot.format import ACTION, AUX_FEATURES, FRONT_IMAGE, STATE, WRIST_IMAGE
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import compute_norm_stats

pytestmark = pytest.mark.lerobot
pytest.importorskip("lerobot")

LENGTHS = [25, 120, 3]
HORIZON = 10


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def real():
    """The module with lerobot's own LeRobotDataset, which was moved between releases."""
    package = "lerobot.datasets" if importlib.util.find_spec("lerobot.datasets") else "lerobot.common.datasets"
    return importlib.import_module(f"{package}.lerobot_dataset")


def to_uint8(image) -> np.ndarray:
    """lerobot gives float (3, height, width) in [0, 1]."""
    return np.round(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_reads_what_the_tests_and_we_write(
    version, real, tmp_path, random_episodes, write_v21, write_v30, monkeypatch
):
    """v2.1 is written by the project, v3.0 by the tests' own helper: so that one is checked here as well."""
    if version != real.CODEBASE_VERSION:
        pytest.skip(f"this lerobot reads {real.CODEBASE_VERSION}")
    write = {"v2.1": write_v21, "v3.0": write_v30}[version]
    tasks = ("Stack the cubes", "Unstack")
    root = write(tmp_path / "owner" / "data", random_episodes(LENGTHS), tasks=tasks)
    ours = LeRobotDataset(root)
    delta_timestamps = {ACTION: [step / ours.fps for step in range(HORIZON)]}
    theirs = real.LeRobotDataset("owner/data", root=root, delta_timestamps=delta_timestamps)
    assert (theirs.num_frames, theirs.num_episodes, theirs.fps) == (ours.num_frames, ours.num_episodes, ours.fps)
    assert len(theirs) == sum(LENGTHS)
    for index in (0, 24, 25, 99, 144, 145, 147):
        frame = theirs[index]
        assert np.array_equal(frame[ACTION].numpy(), ours.action_chunks([index], HORIZON)[0])
        assert np.array_equal(frame[STATE].numpy(), ours.column(STATE)[index])
        for key in (FRONT_IMAGE, WRIST_IMAGE):
            assert np.array_equal(to_uint8(frame[key]), ours.image(key, index))
        for key in AUX_FEATURES:
            assert frame[key].item() == ours.column(key)[index, 0]
        assert frame["task"] == ours.prompt(index)
    if version == "v2.1":
        stats = theirs.meta.stats
        assert np.allclose(stats[STATE]["mean"], ours.column(STATE).mean(0), atol=1e-6)
        assert stats[FRONT_IMAGE]["mean"].shape == (3, 1, 1)


@pytest.mark.parametrize("dtype", ["image", "video"])
def test_we_read_what_lerobot_writes(dtype, real, tmp_path, random_episodes, features):
    episodes = random_episodes(LENGTHS)
    described = {name: feature.as_dict() | {"shape": feature.shape} for name, feature in features.items()}
    size = 64  # H.264 and AV1 want more than a few pixels
    levels = 20 + np.arange(sum(LENGTHS)) % 200
    for name in (FRONT_IMAGE, WRIST_IMAGE):
        described[name] |= {"dtype": dtype, "shape": (size, size, 3)}
    dataset = real.LeRobotDataset.create(
        "owner/data", fps=20, features=described, root=tmp_path / "data", use_videos=dtype == "video"
    )
    index = 0
    for number, episode in enumerate(episodes):
        for step in range(len(episode[ACTION])):
            frame = {name: episode[name][step] for name in (STATE, ACTION)}
            frame |= {name: np.full((size, size, 3), levels[index], np.uint8) for name in (FRONT_IMAGE, WRIST_IMAGE)}
            add_frame(dataset, frame, f"task {number}")
            index += 1
        dataset.save_episode()
    if hasattr(dataset, "finalize"):  # v3.0 keeps a parquet writer open
        dataset.finalize()

    ours = LeRobotDataset(tmp_path / "data")
    assert ours.version == real.CODEBASE_VERSION
    assert ours.episode_lengths.tolist() == LENGTHS
    assert ours.features[ACTION] == features[ACTION]
    for name in (STATE, ACTION):
        assert np.array_equal(ours.column(name), np.concatenate([episode[name] for episode in episodes]))
    assert [ours.prompt(start) for start in ours.episode_starts] == ["task 0", "task 1", "task 2"]
    indices = np.random.default_rng(0).permutation(ours.num_frames)
    images = ours.images(FRONT_IMAGE, indices)
    assert images.shape == (ours.num_frames, size, size, 3)
    assert np.abs(images.mean((1, 2, 3)) - levels[indices]).max() <= (0 if dtype == "image" else 5)
    chunks = ours.action_chunks(range(ours.num_frames), HORIZON).reshape(-1, 2)
    stats = compute_norm_stats(ours, HORIZON, batch_size=1)  # every frame counts
    assert np.allclose(stats.actions.mean, chunks.mean(0, dtype=np.float64), atol=1e-8)


def add_frame(dataset, frame, task: str) -> None:
    """The task is an argument in some releases and an entry of the frame in others."""
    try:
        dataset.add_frame(frame | {"task": task})
    except (TypeError, ValueError):
        dataset.add_frame(frame, task)
