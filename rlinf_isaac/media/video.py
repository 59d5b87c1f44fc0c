"""Frames to a playable mp4: H.264, yuv420p, moov atom first, checked before it gets its name.

Browsers (hence MLflow's preview) show a black box without a word for OpenCV's ``mp4v`` or a file whose encoder was not
waited for. So frames go straight into the ffmpeg that imageio-ffmpeg brings along, into a temporary sibling; the file
is renamed only after the encoder has exited well and every frame was decoded again and counted.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from rlinf_isaac.ground.atomic import new_file
from rlinf_isaac.ground.errors import VideoError
from rlinf_isaac.ground.reading import check_regular

CODEC = "h264"
PIXEL_FORMAT = "yuv420p"

# After the last frame an encoder has a few frames to finish and the index to move; this is for one that hangs.
_ENCODER_SECONDS = 120

# Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p(tv, bt709), 512x256 [SAR 1:1], 376 kb/s, 20 fps
_STREAM = re.compile(
    r"Stream #0:\d+.*?: Video: (?P<codec>\w+).*?, (?P<pixel_format>[a-z]+\d\w*)\b.*?, (?P<width>\d+)x(?P<height>\d+)\b"
    r"(?:.*?, (?P<fps>[\d.]+) fps)?"
)


@dataclass(frozen=True)
class VideoInfo:
    """What decoding a video found. Sizes in pixels; `frames` is the number of frames that really decode."""

    frames: int
    width: int
    height: int
    fps: float
    codec: str
    pixel_format: str


class VideoWriter:
    """Context manager that streams frames to `path`; equal frames give equal bytes.

    Nothing appears at `path` unless the block ends without an exception and the file then passes `verify_video`.

        with VideoWriter("videos/episode_000.mp4", fps=20) as video:
            video.append(frame)  # (height, width, 3) uint8 RGB, as often as there are control steps

    Attributes:
        path: the mp4 file.
        info: what verification found; None until the block has ended.

    Raises:
        VideoError: a frame is not as the first one, there was none, or the encoder failed (with its last words).
    """

    def __init__(self, path: str | Path, fps: float = 20) -> None:
        if not 0 < fps <= 1000:
            raise VideoError(f"{path}: {fps} frames per second; give the control rate in Hz, such as 20")
        self.path = Path(path)
        self.info: VideoInfo | None = None
        self._fps = fps
        self._frames = 0
        self._shape: tuple[int, ...] | None = None
        self._encoder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            self._temporary = stack.enter_context(new_file(self.path))
            self._messages: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            self._cleanup = stack.pop_all()
        return self

    def append(self, frame: np.ndarray) -> None:
        """Append one frame, (height, width, 3) uint8 RGB, all of one size. Odd sizes are padded by a line of black."""
        if self._encoder is None:
            self._shape = frame.shape
            self._encoder = self._start(frame)
        if frame.dtype != np.uint8 or frame.shape != self._shape:
            raise VideoError(
                f"{self.path}: frame {self._frames} is {frame.dtype} {frame.shape}, the first was uint8 {self._shape}"
            )
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(np.ascontiguousarray(frame).data)
        except BrokenPipeError:
            self._finish()
            raise VideoError(f"{self.path}: the encoder stopped at frame {self._frames}") from None
        self._frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._kill()
            self._cleanup.__exit__(kind, error, traceback)  # `new_file` removes the temporary.

    def close(self) -> VideoInfo:
        """Finish the video, verify it and give it its name. Leaving the block does the same; twice does no harm."""
        if self.info is None:
            with self._cleanup:
                try:
                    if self._encoder is None:
                        raise VideoError(f"{self.path}: no frame was written")
                    self._finish()
                    self.info = verify_video(self._temporary, self._frames)
                finally:
                    self._kill()
        return self.info

    def _start(self, frame: np.ndarray) -> subprocess.Popen[bytes]:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise VideoError(f"{self.path}: a frame is {frame.dtype} {frame.shape}, not uint8 (height, width, 3)")
        height, width, _ = frame.shape
        # libx264 with one thread and the bitexact flags writes the same bytes every time. The colour matrix is stated,
        # because players guess it from the size otherwise.
        command = [
            *(ffmpeg(), "-hide_banner", "-loglevel", "error", "-y"),
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{self._fps}", "-i", "pipe:0"),
            *("-vf", _FILTERS, "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-threads", "1"),
            *("-pix_fmt", PIXEL_FORMAT, "-fps_mode", "passthrough", "-fflags", "+bitexact", "-flags:v", "+bitexact"),
            *("-map_metadata", "-1", "-movflags", "+faststart", "-f", "mp4", str(self._temporary)),
        ]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._messages)

    def _finish(self) -> None:
        """Close the encoder's input and wait until it has written the file."""
        assert self._encoder is not None
        assert self._encoder.stdin is not None
        with suppress(BrokenPipeError):  # Its exit status and messages tell more.
            self._encoder.stdin.close()
        try:
            status = self._encoder.wait(_ENCODER_SECONDS)
        except subprocess.TimeoutExpired:
            raise VideoError(
                f"{self.path}: the encoder still works {_ENCODER_SECONDS} s after the last frame"
            ) from None
        if status != 0:
            self._messages.seek(0)
            messages = self._messages.read().decode(errors="replace").splitlines()
            raise VideoError(
                f"{self.path}: the encoder failed with exit status {status} after {self._frames} frames: "
                + _abridge(messages)
            )

    def _kill(self) -> None:
        """End the encoder, if it still runs, and reap it."""
        if self._encoder is not None:
            self._encoder.kill()
            self._encoder.communicate()


def verify_video(path: str | Path, frames: int) -> VideoInfo:
    """Decode a whole video and check that it is playable everywhere and holds `frames` frames.

    Raises:
        VideoError: it does not decode, is cut off, holds another number of frames, or is not H.264 in yuv420p.
    """
    info = decode_video(path)
    if (info.codec, info.pixel_format) != (CODEC, PIXEL_FORMAT):
        raise VideoError(f"{path} is {info.codec} {info.pixel_format}; browsers need {CODEC} {PIXEL_FORMAT}")
    if info.frames != frames:
        raise VideoError(f"{path} holds {info.frames} frames, {frames} were recorded")
    return info


def decode_video(path: str | Path) -> VideoInfo:
    """Decode a whole video and count its frames.

    Raises:
        VideoError: it does not decode, or is cut off.
    """
    path = Path(path)
    try:
        check_regular(path)
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {error.strerror}") from error
    # framecrc prints one line per decoded frame; passthrough keeps ffmpeg from repeating or dropping any.
    command = [
        *(
            ffmpeg(),
            "-hide_banner",
            "-nostdin",
            "-nostats",
            "-loglevel",
            "level+info",
            "-xerror",
            "-threads",
            "1",
            # Whatever it says it is: a playlist in its place could name other files and servers.
            "-f",
            "mp4",
            "-i",
            f"file:{path}",
        ),
        *("-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framecrc", "pipe:1"),
    ]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    messages = result.stderr.decode(errors="replace")
    stream = _STREAM.search(messages)
    if result.returncode != 0 or stream is None:
        errors = [line for line in messages.splitlines() if "[error]" in line or "[fatal]" in line]
        raise VideoError(f"{path} does not decode: {_abridge(errors)}")
    return VideoInfo(
        frames=sum(not line.startswith(b"#") for line in result.stdout.splitlines()),
        width=int(stream["width"]),
        height=int(stream["height"]),
        fps=float(stream["fps"] or 0),
        codec=stream["codec"],
        pixel_format=stream["pixel_format"],
    )


_FILTERS = (
    "pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix=bt709:out_range=tv,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)


def ffmpeg() -> str:
    """Path of the ffmpeg that imageio-ffmpeg brings. Raises VideoError when there is none."""
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise VideoError(f"no ffmpeg: {error}; reinstall imageio-ffmpeg or set IMAGEIO_FFMPEG_EXE") from error


def _abridge(lines: list[str], count: int = 4) -> str:
    return " | ".join(lines[:count]) or "no message"
