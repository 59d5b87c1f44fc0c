"""Makes a small animation and a still image of a video, for places that show images but do not play videos."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from rlinf_isaac.ground.errors import VideoError
from rlinf_isaac.media.video import decoded, opened

FPS = 5
HEIGHT = 160


def write_preview(video: str | Path, still: str | Path, animation: str | Path) -> None:
    """Write the last frame of `video` as PNG, and the whole video as an animated WebP that repeats.

    The animation has `FPS` frames per second of the video, plays at twice the speed, and is `HEIGHT` pixels high.

    Raises:
        VideoError: the video cannot be decoded.
    """
    small, last = [], None
    with opened(video) as stream:
        every = max(1, round(float(stream.average_rate or FPS) / FPS))
        width = 2 * round(stream.codec_context.width * HEIGHT / stream.codec_context.height / 2)
        for number, last in enumerate(decoded(stream)):
            if number % every == 0:
                small.append(last.to_image(width=max(2, width), height=HEIGHT))
        if last is None:
            raise VideoError(f"no preview of {video}: it has no frames")
        last.to_image().save(still, "PNG")
    small[0].save(
        animation, "WEBP", save_all=True, append_images=small[1:], duration=500 // FPS, loop=0, quality=55, method=2
    )


def write_still(video: str | Path, still: str | Path) -> None:
    """Write the last frame of `video` as an image, in the format that the suffix of `still` says.

    Raises:
        VideoError: the video cannot be decoded.
    """
    with opened(video) as stream:
        frames = deque(decoded(stream), maxlen=1)
        if not frames:
            raise VideoError(f"no still image of {video}: it has no frames")
        frames[0].to_image().save(still, quality=85)
