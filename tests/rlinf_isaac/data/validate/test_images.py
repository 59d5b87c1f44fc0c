"""Images and videos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import V21_VIDEOS, V30_VIDEOS, add_video_feature

from rlinf_isaac.data.lerobot.format import ACTION, FRONT_IMAGE, vector_feature
from rlinf_isaac.data.validate import images as validate_images
from rlinf_isaac.data.validate.dataset import validate_dataset
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.media.png import encode_png

FPS = 20
SIZE = (32, 48)
LENGTHS = [5, 12, 3]
ACTION_ONLY = {ACTION: vector_feature(["dx"])}


def only_problem(root: Path, **options) -> Problem:
    (problem,) = validate_dataset(root, **options)
    return problem


def replace_image(root: Path, row: int, data: bytes | None, file="data/chunk-000/episode_000000.parquet") -> None:
    table = pq.read_table(root / file)
    images = table[FRONT_IMAGE].to_pylist()
    images[row]["bytes"] = data
    column = pa.array(images, table[FRONT_IMAGE].type)
    table = table.set_column(table.column_names.index(FRONT_IMAGE), FRONT_IMAGE, column)
    pq.write_table(table, root / file, row_group_size=10)


class TestImages:
    def test_rows_are_named_across_row_groups(self, tmp_path, random_episodes, write_v21):
        root = write_v21(tmp_path / "data", random_episodes([25]))
        replace_image(root, 17, b"")
        problem = only_problem(root)
        assert problem.code == "image-damaged"
        assert f"episode_000000.parquet: {FRONT_IMAGE} of row 17" in problem.cause

    def test_a_sample_or_all(self, tmp_path, random_episodes, write_v21):
        root = write_v21(tmp_path / "data", random_episodes([100]))
        image = encode_png(np.zeros((4, 4, 3), np.uint8))
        replace_image(root, 1, image)  # 32 of 100 rows are sampled: 0, 3, 6, ...
        assert validate_dataset(root) == []
        problem = only_problem(root, full=True)
        assert problem.code == "image-size"
        assert "row 1 is 4 x 4 pixels, but the feature's shape is [8, 10, 3]" in problem.cause
        replace_image(root, 99, image)
        assert "row 99" in only_problem(root).cause

    def test_large_row_groups_end_the_sample(self, tmp_path, random_episodes, write_v21, monkeypatch):
        root = write_v21(tmp_path / "data", random_episodes([10, 10]))
        replace_image(root, 9, b"", "data/chunk-000/episode_000001.parquet")
        monkeypatch.setattr(validate_images, "SAMPLED_BYTES", 1)
        assert validate_dataset(root) == [], "only the first row group was read"
        assert only_problem(root, full=True).code == "image-damaged"

    def test_depth_and_paths(self, tmp_path, random_episodes, write_v21):
        root = write_v21(tmp_path / "data", random_episodes([5]))
        Image.fromarray(np.zeros((8, 10), np.uint16)).save(tmp_path / "depth.png")
        replace_image(root, 0, (tmp_path / "depth.png").read_bytes())
        assert only_problem(root).code == "image-mode"
        replace_image(root, 0, None)
        assert only_problem(root).code == "image-by-path"

    def test_channels_first_in_info(self, v21_root, edit_json):
        features = json.loads((v21_root / "meta/info.json").read_text())["features"]
        features[FRONT_IMAGE] |= {"shape": [3, 8, 10], "names": ["channels", "height", "width"]}
        edit_json(v21_root / "meta/info.json", features=features)
        assert validate_dataset(v21_root) == []
        features[FRONT_IMAGE]["shape"] = [3, 10, 8]
        edit_json(v21_root / "meta/info.json", features=features)
        assert only_problem(v21_root).code == "image-size"

    def test_damaged_pages(self, v21_root):
        path = v21_root / "data/chunk-000/episode_000000.parquet"
        column = pq.read_metadata(path).row_group(0).column(0)
        assert column.path_in_schema.startswith(FRONT_IMAGE)
        data = bytearray(path.read_bytes())
        data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
        path.write_bytes(data)
        assert only_problem(v21_root).code == "parquet-damaged"


def write_video(path: Path, frames: int, fps: int = FPS, size=SIZE) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": "4"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            image = np.full((*size, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def v21_template(tmp_path_factory, random_episodes, write_v21) -> Path:
    root = tmp_path_factory.mktemp("videos") / "v21"
    write_v21(root, random_episodes(LENGTHS, features=ACTION_ONLY), features=ACTION_ONLY)
    add_video_feature(root, FRONT_IMAGE, SIZE, V21_VIDEOS)
    for episode, frames in enumerate(LENGTHS):
        write_video(video_of(root, episode), frames)
    return root


@pytest.fixture
def v21_videos(v21_template, tmp_path) -> Path:
    return Path(shutil.copytree(v21_template, tmp_path / "data"))


@pytest.fixture
def v30_videos(tmp_path, random_episodes, write_v30) -> Path:
    """The first two episodes in one file."""
    root = write_v30(tmp_path / "v30", random_episodes(LENGTHS, features=ACTION_ONLY), features=ACTION_ONLY)
    add_video_feature(root, FRONT_IMAGE, SIZE, V30_VIDEOS)
    write_video(root / f"videos/{FRONT_IMAGE}/chunk-000/file-000.mp4", LENGTHS[0] + LENGTHS[1])
    write_video(root / f"videos/{FRONT_IMAGE}/chunk-000/file-001.mp4", LENGTHS[2])
    path, key = root / "meta/episodes/chunk-000/file-000.parquet", f"videos/{FRONT_IMAGE}"
    table = pq.read_table(path)
    for name, values in (
        ("chunk_index", [0, 0, 0]),
        ("file_index", [0, 0, 1]),
        ("from_timestamp", [0.0, LENGTHS[0] / FPS, 0.0]),
    ):
        table = table.append_column(f"{key}/{name}", pa.array(values))
    pq.write_table(table, path)
    return root


def video_of(root: Path, episode: int) -> Path:
    return root / f"videos/chunk-000/{FRONT_IMAGE}/episode_{episode:06d}.mp4"


class TestVideos:
    @pytest.mark.parametrize("full", [False, True])
    @pytest.mark.parametrize("version", ["v21_videos", "v30_videos"])
    def test_valid(self, version, full, request):
        assert validate_dataset(request.getfixturevalue(version), full=full) == []

    def test_missing(self, v21_videos):
        video_of(v21_videos, 1).unlink()
        video_of(v21_videos, 2).unlink()
        problem = only_problem(v21_videos)
        assert problem.code == "video-missing"
        assert all(f"episode_00000{episode}.mp4 is missing" in problem.cause for episode in (1, 2))

    @pytest.mark.parametrize("keep", [0, 200])
    def test_damaged(self, v21_videos, keep):
        path = video_of(v21_videos, 1)
        path.write_bytes(path.read_bytes()[:keep])
        assert only_problem(v21_videos).code == "video-damaged"

    def test_truncated_behind_an_intact_header(self, v21_videos):
        path = video_of(v21_videos, 1)
        path.write_bytes(path.read_bytes()[:-300])
        assert only_problem(v21_videos).code in ("video-short", "video-damaged")

    @settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_whatever_is_damaged_no_exception_comes_out(self, v21_videos, v21_template, data):
        content = bytearray(video_of(v21_template, 2).read_bytes())
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= data.draw(st.integers(1, 255))
        video_of(v21_videos, 2).write_bytes(content[: data.draw(st.sampled_from([position, len(content)]))])
        problems = validate_dataset(v21_videos, full=True)
        assert {problem.code.split("-")[0] for problem in problems} <= {"video", "image"}

    def test_of_another_length(self, v21_videos):
        write_video(video_of(v21_videos, 1), 11)
        assert {problem.code for problem in validate_dataset(v21_videos)} == {"video-short"}
        write_video(video_of(v21_videos, 1), 13)
        problem = only_problem(v21_videos)
        assert (problem.code, problem.level) == ("video-length", "warning")

    def test_of_another_rate_or_size(self, v21_videos):
        write_video(video_of(v21_videos, 1), 12, fps=30)
        write_video(video_of(v21_videos, 2), 3, size=(48, 32))
        assert [problem.code for problem in validate_dataset(v21_videos)] == ["video-fps", "image-size"]

    def test_only_some_are_decoded_unless_full(self, v21_videos, monkeypatch):
        monkeypatch.setattr(validate_images, "SAMPLED_VIDEOS", 2)
        video_of(v21_videos, 1).write_bytes(b"")
        assert validate_dataset(v21_videos) == []
        assert only_problem(v21_videos, full=True).code == "video-damaged"

    def test_video_that_meta_does_not_list(self, v21_videos):
        shutil.copy(video_of(v21_videos, 0), video_of(v21_videos, 3))
        assert only_problem(v21_videos).code == "stray-file"
