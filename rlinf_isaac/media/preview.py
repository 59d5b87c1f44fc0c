"""A small animation of a video, and a still, for places that show images but play no video."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rlinf_isaac.ground.errors import VideoError
from rlinf_isaac.media.video import ffmpeg

FPS = 5
HEIGHT = 160


def write_preview(video: str | Path, still: str | Path, animation: str | Path) -> None:
    """Write the last frame of `video` as PNG, and the whole of it as an animated WebP that repeats.

    The animation has `FPS` of the video's frames per second of it, played at twice the speed, `HEIGHT` pixels high.

    Raises:
        VideoError: the video cannot be decoded.
    """
    small = f"fps={FPS},setpts=PTS/2,scale=-2:{HEIGHT}"
    for command in (
        [*("-sseof", "-1", "-i", str(video)), *("-update", "1", "-c:v", "png", "-f", "image2", str(still))],
        [
            *("-i", str(video), "-vf", small, "-c:v", "libwebp_anim", "-loop", "0", "-quality", "55"),
            *("-compression_level", "2", "-fps_mode", "passthrough", "-f", "webp", str(animation)),
        ],
    ):
        arguments = [ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error", "-y", "-threads", "1", *command]
        result = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if result.returncode != 0:
            message = result.stderr.decode(errors="replace").strip().partition("\n")[0]
            raise VideoError(f"no preview of {video}: {message or 'ffmpeg failed'}")
