from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from rlinf_isaac.ground.errors import VideoError
from rlinf_isaac.media import video
from rlinf_isaac.media.video import VideoInfo, VideoWriter, verify_video


def make_frames(count: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """A bright square that moves over a gradient."""
    background = np.linspace(0, 200, width).astype(np.uint8)[None, :, None].repeat(height, 0).repeat(3, 2)
    frames = []
    for number in range(count):
        frame = background.copy()
        frame[8:24, number % (width - 16) : number % (width - 16) + 16] = (255, 40, 40)
        frames.append(frame)
    return frames


def record(path: Path, frames: Iterable[np.ndarray], **options: float) -> VideoInfo:
    with VideoWriter(path, **options) as writer:
        for frame in frames:
            writer.append(frame)
    assert writer.info is not None
    return writer.info


def interrupted(frames: list[np.ndarray], interrupt: Callable[[], None]) -> Iterator[np.ndarray]:
    """The frames of a recording in the middle of which something happens."""
    yield from frames
    interrupt()
    yield from make_frames(200)


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


def decode(path: Path) -> np.ndarray:
    """(frames, height, width, 3) uint8, by another ffmpeg than PyAV's."""
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def transcode(source: Path, target: Path, *options: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-i", str(source), *options, str(target)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def mp4(tmp_path: Path) -> Path:
    record(tmp_path / "a.mp4", make_frames(20))
    return tmp_path / "a.mp4"


class TestVideoWriter:
    @pytest.mark.parametrize("count", [1, 2, 37])
    def test_every_frame_is_there(self, tmp_path, count):
        info = record(tmp_path / "a.mp4", make_frames(count), fps=20)
        assert info == VideoInfo(count, 96, 64, 20.0, "h264", "yuv420p")
        assert len(decode(tmp_path / "a.mp4")) == count

    def test_frames_look_as_they_did(self, tmp_path):
        frames = make_frames(12)
        record(tmp_path / "a.mp4", frames)
        decoded = decode(tmp_path / "a.mp4")
        assert np.abs(decoded.astype(int) - np.stack(frames)).mean() < 4
        centre = decoded[5, 12:20, 9:17].reshape(-1, 3).mean(axis=0)
        assert centre == pytest.approx((255, 40, 40), abs=12)

    def test_equal_frames_give_equal_bytes(self, tmp_path, mp4):
        used = []  # memory that others have used is handed to the encoder
        for number in range(40):
            used = [*used[-10:], np.full(5000 * (number + 1), number, np.uint8)]
            record(tmp_path / "b.mp4", make_frames(20))
            assert (tmp_path / "b.mp4").read_bytes() == mp4.read_bytes()

    def test_the_index_comes_first(self, mp4):
        data = mp4.read_bytes()
        assert data[4:8] == b"ftyp"
        assert 0 < data.index(b"moov") < data.index(b"mdat")

    @pytest.mark.parametrize("fps", [20, 12.5, 30])
    def test_frame_rate(self, tmp_path, fps):
        assert record(tmp_path / "a.mp4", make_frames(5), fps=fps).fps == pytest.approx(fps)

    def test_odd_sizes_are_padded(self, tmp_path):
        info = record(tmp_path / "a.mp4", make_frames(3, height=63, width=95))
        assert (info.width, info.height) == (96, 64)

    def test_frames_need_not_be_contiguous(self, tmp_path):
        record(tmp_path / "a.mp4", [frame[:, ::-1] for frame in make_frames(3)])
        record(tmp_path / "b.mp4", [frame[:, ::-1].copy() for frame in make_frames(3)])
        assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()

    def test_mode_follows_the_umask(self, tmp_path):
        before = os.umask(0o027)
        try:
            record(tmp_path / "a.mp4", make_frames(2))
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a.mp4").stat().st_mode) == 0o640

    def test_it_appears_when_closed_and_not_before(self, tmp_path):
        with VideoWriter(tmp_path / "a.mp4") as writer:
            for frame in make_frames(5):
                writer.append(frame)
            assert not writer.path.exists()
            assert writer.close().frames == 5
            assert writer.path.exists()
        assert verify_video(writer.path, 5) == writer.info

    def test_several_at_once(self, tmp_path):
        frames = make_frames(10)
        with VideoWriter(tmp_path / "a.mp4") as one, VideoWriter(tmp_path / "b.mp4") as other:
            for frame in frames:
                one.append(frame)
                other.append(frame)
        assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()

    @pytest.mark.parametrize("frames", [0, 1, 10])
    def test_an_exception_in_the_block_leaves_no_file(self, tmp_path, frames):
        with pytest.raises(KeyboardInterrupt):
            record(tmp_path / "a.mp4", interrupted(make_frames(frames), press_ctrl_c))
        assert list(tmp_path.iterdir()) == []

    def test_an_older_video_stays_when_a_new_one_fails(self, mp4):
        before = mp4.read_bytes()
        with pytest.raises(KeyboardInterrupt):
            record(mp4, interrupted(make_frames(1), press_ctrl_c))
        assert mp4.read_bytes() == before

    def test_no_frames(self, tmp_path):
        with pytest.raises(VideoError, match="no frame was written"):
            record(tmp_path / "a.mp4", [])
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "frame",
        [
            np.zeros((64, 96), np.uint8),
            np.zeros((64, 96, 4), np.uint8),
            np.zeros((3, 64, 96), np.uint8),
            np.zeros((64, 96, 3), np.float32),
            np.zeros((0, 96, 3), np.uint8),
        ],
        ids=["grey", "rgba", "channels first", "float", "empty"],
    )
    @pytest.mark.parametrize("first", [True, False])
    def test_other_frames_are_refused(self, tmp_path, frame, first):
        with pytest.raises(VideoError, match="uint8"):
            record(tmp_path / "a.mp4", [frame] if first else [*make_frames(1), frame])
        assert list(tmp_path.iterdir()) == []

    def test_a_change_of_size_is_refused(self, tmp_path):
        with pytest.raises(VideoError, match="frame 1 is"):
            record(tmp_path / "a.mp4", [*make_frames(1), *make_frames(1, height=32)])

    @pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
    def test_frame_rates_that_are_none(self, tmp_path, fps):
        with pytest.raises(VideoError, match="frames per second"):
            VideoWriter(tmp_path / "a.mp4", fps=fps)

    def test_what_the_encoder_refuses_is_an_error(self, tmp_path, monkeypatch):
        monkeypatch.setitem(video._ENCODER, "preset", "no-such-preset")
        with pytest.raises(VideoError, match="frame 0 cannot be written"):
            record(tmp_path / "a.mp4", make_frames(3))
        assert list(tmp_path.iterdir()) == []

    def test_an_encoder_that_cannot_write(self, tmp_path):
        with pytest.raises(VideoError, match="No such file or directory"):
            record(tmp_path / "missing" / "a.mp4", make_frames(3))

    def test_killed_recorder_leaves_no_video_and_the_next_one_cleans_up(self, tmp_path):
        code = (
            "import os, sys, numpy as np\n"
            "from rlinf_isaac.media.video import VideoWriter\n"
            "with VideoWriter(sys.argv[1]) as writer:\n"
            "    for _ in range(int(sys.argv[2])):\n"
            "        writer.append(np.zeros((64, 96, 3), np.uint8))\n"
            "    os.kill(os.getpid(), 9)\n"
        )
        for frames in (1, 50, 400):
            result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.mp4"), str(frames)], check=False)
            assert result.returncode == -9
            assert not (tmp_path / "a.mp4").exists()
        record(tmp_path / "a.mp4", make_frames(2))
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


class TestVerifyVideo:
    def test_what_it_finds(self, mp4):
        assert verify_video(mp4, 20) == VideoInfo(20, 96, 64, 20.0, "h264", "yuv420p")

    @pytest.mark.parametrize("frames", [0, 19, 21])
    def test_another_number_of_frames(self, mp4, frames):
        with pytest.raises(VideoError, match=f"holds 20 frames, {frames} were recorded"):
            verify_video(mp4, frames)

    def test_truncations(self, mp4):
        whole, chooser = mp4.read_bytes(), random.Random(0)
        for length in [0, 1, len(whole) - 1, *(chooser.randrange(len(whole)) for _ in range(12))]:
            mp4.write_bytes(whole[:length])
            with pytest.raises(VideoError, match=r"a\.mp4"):
                verify_video(mp4, 20)

    def test_damage_that_a_decoder_complains_about(self, mp4):
        whole, chooser, complaints = mp4.read_bytes(), random.Random(0), 0
        for _ in range(20):
            damaged, place = bytearray(whole), chooser.randrange(whole.index(b"mdat") + 4, len(whole) - 20)
            damaged[place : place + 20] = chooser.randbytes(20)
            mp4.write_bytes(damaged)
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(mp4), "-f", "null", "-"]
            if subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False).stderr:
                complaints += 1
                with pytest.raises(VideoError):
                    verify_video(mp4, 20)
        assert complaints > 3

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            (("-c:v", "mpeg4"), "mpeg4 yuv420p"),
            (("-c:v", "libx264", "-pix_fmt", "yuv444p"), "h264 yuv444p"),
            (("-c:v", "mjpeg", "-f", "avi"), "does not decode"),
        ],
        ids=["OpenCV's default", "not for Safari", "another container"],
    )
    def test_what_browsers_do_not_play(self, tmp_path, mp4, options, found):
        transcode(mp4, tmp_path / "b.mp4", *options)
        with pytest.raises(VideoError, match=found):
            verify_video(tmp_path / "b.mp4", 20)

    @pytest.mark.parametrize("data", [b"", b"not a video", b"\0" * 5000])
    def test_other_files(self, tmp_path, data):
        (tmp_path / "a.mp4").write_bytes(data)
        with pytest.raises(VideoError, match="does not decode"):
            verify_video(tmp_path / "a.mp4", 1)

    def test_no_file(self, tmp_path):
        with pytest.raises(VideoError, match="cannot be read: No such file"):
            verify_video(tmp_path / "a.mp4", 1)

    def test_sound_only(self, tmp_path, mp4):
        transcode(mp4, tmp_path / "b.mp4", "-f", "lavfi", "-i", "sine=d=1", "-map", "1:a", "-c:a", "aac")
        with pytest.raises(VideoError, match="does not decode"):
            verify_video(tmp_path / "b.mp4", 1)
