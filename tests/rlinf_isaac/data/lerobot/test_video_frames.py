"""Video features, read through PyAV. Frames are told apart by their grey level, which H.264 keeps nearly exactly."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import V21_VIDEOS, V30_VIDEOS, add_video_feature

from rlinf_isaac.data.lerobot.format import ACTION, FRONT_IMAGE, vector_feature
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.ground.errors import DatasetError

FPS = 20
SIZE = (32, 48)
LENGTHS = [5, 12, 3]
FEATURES = {ACTION: vector_feature(["dx"])}


def grey_levels(frames: int) -> np.ndarray:
    return 10 + 10 * np.arange(frames)


def write_video(path: Path, levels, fps: int = FPS) -> None:
    """One grey frame per level; a keyframe only every 10 frames, so that reading has to seek and decode on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": "10", "crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def v21_videos(tmp_path, random_episodes, write_v21) -> Path:
    """v2.1: one mp4 per episode."""
    root = write_v21(tmp_path / "v21", random_episodes(LENGTHS, features=FEATURES), features=FEATURES)
    add_video_feature(root, FRONT_IMAGE, SIZE, V21_VIDEOS)
    levels = np.split(grey_levels(sum(LENGTHS)), np.cumsum(LENGTHS)[:-1])
    for episode, part in enumerate(levels):
        write_video(root / f"videos/chunk-000/{FRONT_IMAGE}/episode_{episode:06d}.mp4", part)
    return root


@pytest.fixture
def v30_videos(tmp_path, random_episodes, write_v30) -> Path:
    """v3.0: the first two episodes in one mp4, the second from a timestamp on; the third in another."""
    root = write_v30(tmp_path / "v30", random_episodes(LENGTHS, features=FEATURES), features=FEATURES)
    add_video_feature(root, FRONT_IMAGE, SIZE, V30_VIDEOS)
    levels = grey_levels(sum(LENGTHS))
    write_video(root / f"videos/{FRONT_IMAGE}/chunk-000/file-000.mp4", levels[:17])
    write_video(root / f"videos/{FRONT_IMAGE}/chunk-000/file-001.mp4", levels[17:])
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table, key = pq.read_table(path), f"videos/{FRONT_IMAGE}"
    table = table.append_column(f"{key}/chunk_index", pa.array([0, 0, 0]))
    table = table.append_column(f"{key}/file_index", pa.array([0, 0, 1]))
    table = table.append_column(f"{key}/from_timestamp", pa.array([0.0, LENGTHS[0] / FPS, 0.0]))
    pq.write_table(table, path)
    return root


@pytest.mark.parametrize("videos", ["v21_videos", "v30_videos"])
def test_frames_of_both_versions(videos, request):
    dataset = LeRobotDataset(request.getfixturevalue(videos))
    indices = np.random.default_rng(0).permutation(np.tile(np.arange(20), 2))
    frames = dataset.images(FRONT_IMAGE, indices)
    assert frames.dtype == np.uint8
    assert frames.shape == (40, *SIZE, 3)
    assert np.abs(frames.mean((1, 2, 3)) - grey_levels(20)[indices]).max() < 4
    assert abs(dataset.image(FRONT_IMAGE, 16).mean() - grey_levels(20)[16]) < 4


def test_videos_are_part_of_the_digest(v21_videos):
    before = LeRobotDataset(v21_videos).digest
    write_video(v21_videos / f"videos/chunk-000/{FRONT_IMAGE}/episode_000000.mp4", [0] * 5)
    assert LeRobotDataset(v21_videos).digest != before


def test_video_cut_short(v21_videos):
    path = v21_videos / f"videos/chunk-000/{FRONT_IMAGE}/episode_000001.mp4"
    write_video(path, grey_levels(7))
    dataset = LeRobotDataset(v21_videos)
    dataset.images(FRONT_IMAGE, range(5, 12))
    with pytest.raises(DatasetError, match=r"episode_000001.mp4 has no frame within 0.0250 s of 0.3500 s"):
        dataset.images(FRONT_IMAGE, range(5, 17))


def test_missing_and_damaged_video(v21_videos):
    path = v21_videos / f"videos/chunk-000/{FRONT_IMAGE}/episode_000000.mp4"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match="cannot be decoded"):
        LeRobotDataset(v21_videos).image(FRONT_IMAGE, 0)
    path.unlink()
    with pytest.raises(DatasetError, match="missing"):
        LeRobotDataset(v21_videos).image(FRONT_IMAGE, 0)
