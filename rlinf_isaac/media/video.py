"""Encodes frames to an mp4 that browsers play (H.264, yuv420p, moov atom first), and verifies it.

Browsers, and so MLflow's preview, show a black box and no error for OpenCV's ``mp4v`` or for an incomplete file. So
frames are encoded with libx264, which is part of PyAV, into a temporary file beside `path`. It is renamed only after
all its frames were decoded and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from rlinf_isaac.ground.atomic import new_file
from rlinf_isaac.ground.errors import VideoError
from rlinf_isaac.ground.reading import check_regular

CODEC = "h264"
PIXEL_FORMAT = "yuv420p"

# One thread, the bitexact flags and mbtree=0 make the bytes reproducible. For frames as small as 96 x 64, x264's
# macroblock tree reads uninitialised memory, and one process out of five encoded them differently.
_ENCODER = {"preset": "veryfast", "crf": "23", "flags": "+bitexact", "x264-params": "mbtree=0"}
_CONTAINER = {"movflags": "+faststart", "fflags": "+bitexact"}
_BT709, _LIMITED_RANGE = 1, 1


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a decoded video. Sizes are in pixels; `frames` is the number of frames that were decoded."""

    frames: int
    width: int
    height: int
    fps: float
    codec: str
    pixel_format: str


class VideoWriter:
    """Context manager that streams frames to `path`. Equal frames give equal bytes.

    The file appears at `path` only if the block ends without an exception and the file then passes `verify_video`.

        with VideoWriter("videos/episode_000.mp4", fps=20) as video:
            video.append(frame)  # (height, width, 3) uint8 RGB, as often as there are control steps

    Attributes:
        path: the mp4 file.
        info: the result of verification; None until the block has ended.

    Raises:
        VideoError: a frame differs in size or dtype from the first one, there was no frame, or a frame cannot be
            encoded or written.
    """

    def __init__(self, path: str | Path, fps: float = 20) -> None:
        if not 0 < fps <= 1000:
            raise VideoError(f"{path}: {fps} frames per second; give the control rate in Hz, such as 20")
        self.path = Path(path)
        self.info: VideoInfo | None = None
        self._rate = Fraction(fps).limit_denominator(1000)
        self._frames = 0
        self._shape: tuple[int, ...] | None = None
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            self._temporary = stack.enter_context(new_file(self.path))
            self._cleanup = stack.pop_all()
        return self

    def append(self, frame: np.ndarray) -> None:
        """Append one frame, (height, width, 3) uint8 RGB; all must have one size. Odd sizes get a black line added."""
        import av

        if self._shape is None:
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
                raise VideoError(f"{self.path}: a frame is {frame.dtype} {frame.shape}, not uint8 (height, width, 3)")
            self._shape = frame.shape
        if frame.dtype != np.uint8 or frame.shape != self._shape:
            raise VideoError(
                f"{self.path}: frame {self._frames} is {frame.dtype} {frame.shape}, the first was uint8 {self._shape}"
            )
        height, width, _ = frame.shape
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)))
        with self._told():
            if self._container is None:
                self._open(*even.shape[:2])
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            self._write(picture.reformat(format=PIXEL_FORMAT, dst_colorspace="ITU709", dst_color_range="MPEG"))
        self._frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._let_go()
            self._cleanup.__exit__(kind, error, traceback)  # `new_file` removes the temporary file

    def close(self) -> VideoInfo:
        """Finish the video, verify it and rename it to `path`. Leaving the block does the same. May be called twice."""
        if self.info is None:
            with self._cleanup:
                try:
                    if self._container is None:
                        raise VideoError(f"{self.path}: no frame was written")
                    with self._told():
                        self._write(None)  # flushes the frames that are still in the encoder
                        self._container.close()
                    self.info = verify_video(self._temporary, self._frames)
                finally:
                    self._let_go()
        return self.info

    def _open(self, height: int, width: int) -> None:
        import av

        self._container = av.open(str(self._temporary), "w", format="mp4", options=_CONTAINER)
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=_ENCODER)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, PIXEL_FORMAT
        context = self._stream.codec_context
        context.thread_count = 1
        # The colour matrix is set explicitly, because players otherwise guess it from the size.
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE

    def _write(self, picture: Any) -> None:
        for packet in self._stream.encode(picture):
            self._container.mux(packet)

    def _let_go(self) -> None:
        """Close the temporary file, even if it is incomplete, before it is renamed or removed."""
        import av

        if self._container is not None:
            with suppress(av.FFmpegError, OSError):
                self._container.close()
            self._container = self._stream = None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns exceptions of PyAV into a VideoError."""
        import av

        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self.path}: frame {self._frames} cannot be written: {error}") from error


_STRICT = {"err_detect": "explode"}
"""Makes the decoder report damage, which it otherwise conceals."""


def verify_video(path: str | Path, frames: int) -> VideoInfo:
    """Decode a whole video and check that browsers can play it and that it has `frames` frames.

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
    with opened(path) as stream:
        frames = sum(1 for _ in decoded(stream))
        context = stream.codec_context
        rate = float(stream.average_rate or 0)
        return VideoInfo(frames, context.width, context.height, rate, context.name, str(context.pix_fmt))


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """The video stream of an mp4, for `decoded`. Exceptions of PyAV in the block become a VideoError."""
    path = Path(path)
    try:
        check_regular(path)
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {error.strerror}") from error
    import av

    try:
        # The format is fixed to mp4, because a playlist in the file's place could name other files and servers.
        with av.open(f"file:{path}", format="mp4", options=_STRICT, metadata_errors="replace") as container:
            if not container.streams.video:
                raise VideoError(f"{path} does not decode: it has no video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoError(f"{path} does not decode: its codec is not known")
            stream.codec_context.thread_count, stream.codec_context.options = 1, _STRICT
            yield stream
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path} does not decode: {error}") from error


def decoded(stream: Any) -> Iterator[Any]:
    """All frames of an `opened` stream, as PyAV frames. Raises ValueError if a frame is damaged."""
    for number, frame in enumerate(stream.container.decode(stream)):
        if frame.is_corrupt:
            raise ValueError(f"frame {number} is damaged")
        yield frame
