"""Any frames of a video, in any order and over several calls, are those of one decoding from the first to the last."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.data.lerobot.video_frames import probe_video, read_frames
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.media.open_video import MOST_OPEN, OpenVideo, OpenVideos

FPS, FRAMES, HEIGHT, WIDTH = 25, 70, 32, 48
TOLERANCE_S = 0.5 / FPS
KINDS = {
    "no reordering": ("libx264", {"g": "7", "bf": "0"}),
    "reordering": ("libx264", {"g": "13", "bf": "3", "b-pyramid": "normal"}),
    "all keyframes": ("libx264", {"g": "1"}),
    "one keyframe": ("libx264", {"g": "1000", "bf": "2"}),
    "keyframes at odd distances": ("libx264", {"g": "1000", "bf": "2", "forced": "3,4,11,30,31,57"}),
    "frames shown before their keyframe": ("libx264", {"g": "9", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}),
    "no keyframe but the first": ("libx264", {"g": "11", "x264-params": "intra-refresh=1"}),
    "begins late": ("libx264", {"g": "9", "bf": "2", "first": "17"}),
    "lacks frames": ("libx264", {"g": "9", "bf": "2", "without": "0,5,20,21,22,44"}),
    "AV1": ("libsvtav1", {"g": "9", "preset": "12"}),
}


def write(path: Path, codec: str, options: dict[str, str]) -> None:
    """Noise that drifts, so that no frame is like another; `first`, `without` and `forced` are frame numbers."""
    options = dict(options)
    first = int(options.pop("first", 0))
    without, forced = ({*map(int, filter(None, options.pop(key, "").split(",")))} for key in ("without", "forced"))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(FRAMES):
            image = np.clip(np.roll(image, 1, axis=1) + rng.integers(-20, 21, image.shape), 0, 255)
            frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = first + index, Fraction(1, FPS)
            if index in forced:
                frame.pict_type = av.video.frame.PictureType.I
            if index not in without:
                container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module", params=KINDS)
def video(request, tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A file, the times of its frames in seconds, and the frames, decoded in order."""
    codec, options = KINDS[request.param]
    if codec not in av.codecs_available:
        pytest.skip(f"the installed PyAV writes no {codec}")
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    write(path, codec, options)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        times = np.array([float(frame.time) for frame in frames])
        images = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    assert len(frames) == FRAMES - len([*filter(None, options.get("without", "").split(","))])
    assert len({image.tobytes() for image in images}) == len(images)
    return path, times, images


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_frames_in_any_order(video, data):
    path, times, images = video
    batches = st.lists(st.lists(st.integers(0, len(times) - 1), min_size=1, max_size=8), min_size=1, max_size=3)
    for chosen in data.draw(batches):
        late = data.draw(st.floats(-0.9, 0.9)) * TOLERANCE_S
        found = read_frames(path, times[chosen] + late, TOLERANCE_S)
        assert np.array_equal(found, images[chosen])


def test_every_frame_alone_and_all_in_order(video):
    path, times, images = video
    assert np.array_equal(read_frames(path, times, TOLERANCE_S), images)
    fresh = OpenVideo(path)
    for index in np.random.default_rng(1).permutation(len(times)):
        assert np.array_equal(fresh.frame_at(times[index], TOLERANCE_S), images[index])
    fresh.close()
    assert probe_video(path, count=True).frames == len(times)
    assert np.array_equal(read_frames(path, times[-1:], TOLERANCE_S), images[-1:])


def test_a_time_without_a_frame_is_refused_and_the_next_one_is_found(video):
    path, times, images = video
    for absent in (times[-1] + 1 / FPS, times[-1] + 10, times[0] - 1 / FPS):
        with pytest.raises(DatasetError, match="has no frame within"):
            read_frames(path, np.array([absent]), TOLERANCE_S)
        assert np.array_equal(read_frames(path, times[3:4], TOLERANCE_S), images[3:4])


def test_the_first_of_two_frames_that_are_near_enough(video):
    path, times, images = video
    two = np.flatnonzero(np.diff(times) < 1.5 / FPS)
    for index in np.random.default_rng(2).permutation(two)[:12]:
        between = (times[index] + times[index + 1]) / 2
        assert np.array_equal(read_frames(path, np.array([between]), 0.8 / FPS)[0], images[index])


def test_few_files_stay_open_and_another_file_in_its_place_is_read(tmp_path):
    codec, options = KINDS["reordering"]
    write(tmp_path / "0.mp4", codec, options)
    videos = OpenVideos()
    for name in range(1, MOST_OPEN + 3):
        os.link(tmp_path / "0.mp4", tmp_path / f"{name}.mp4")
        first = videos.get(tmp_path / f"{name}.mp4")
        assert videos.get(tmp_path / f"{name}.mp4") is first
    held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert len([each for each in held if each.startswith(str(tmp_path))]) <= MOST_OPEN

    last = tmp_path / f"{MOST_OPEN + 2}.mp4"
    shown = videos.get(last).frame_at(0.0, TOLERANCE_S)
    write(tmp_path / "other.mp4", "libx264", {"g": "5", "without": "0,1"})
    os.replace(tmp_path / "other.mp4", last)
    assert not np.array_equal(videos.get(last).frame_at(2 / FPS, TOLERANCE_S), shown)


def test_a_codec_that_nobody_knows_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, *KINDS["no reordering"])
    path.write_bytes(path.read_bytes().replace(b"avc1", b"\xffvc1"))
    with pytest.raises(IndexError, match="codec"):
        OpenVideo(path)
    with pytest.raises(DatasetError, match="video-damaged"):
        list(read_frames(path, [0.0], TOLERANCE_S))
