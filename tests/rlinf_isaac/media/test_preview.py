from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rlinf_isaac.ground.errors import VideoError
from rlinf_isaac.media.preview import HEIGHT, write_preview
from rlinf_isaac.media.video import VideoWriter


@pytest.mark.parametrize("frames", [2, 17, 45])
def test_a_video_becomes_an_animation_and_a_still_of_its_end(tmp_path, frames):
    with VideoWriter(tmp_path / "video.mp4") as video:
        for number in range(frames):
            frame = np.zeros((64, 128, 3), dtype=np.uint8)
            frame[..., 1 if number == frames - 1 else 0] = 200
            frame[:8, : 2 * number + 2] = 255  # equal frames would be merged
            video.append(frame)
    write_preview(tmp_path / "video.mp4", tmp_path / "still.png", tmp_path / "animation.webp")
    with Image.open(tmp_path / "still.png") as still:
        red, green, _ = still.convert("RGB").getpixel((64, 32))
        assert green > 150 > 50 > red
    with Image.open(tmp_path / "animation.webp") as animation:
        assert animation.size == (2 * HEIGHT, HEIGHT)
        assert animation.n_frames == pytest.approx(frames / 4, abs=1)


def test_what_is_no_video(tmp_path):
    (tmp_path / "video.mp4").write_bytes(b"\0" * 1000)
    with pytest.raises(VideoError, match=r"video\.mp4"):
        write_preview(tmp_path / "video.mp4", tmp_path / "still.png", tmp_path / "animation.webp")
