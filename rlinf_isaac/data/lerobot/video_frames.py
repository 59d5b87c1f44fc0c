"""Reads frames of an mp4 at given times with PyAV. Only datasets with video features need it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlinf_isaac.data.lerobot.files import RESTORE
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.media.open_video import OpenVideo, OpenVideos

_VIDEOS = OpenVideos()


def read_frames(path: Path, timestamps_s: np.ndarray, tolerance_s: float) -> np.ndarray:
    """Decode, for each timestamp, the first frame within the tolerance. Files stay open between calls (`OpenVideos`).

    Args:
        path: the video file.
        timestamps_s: (n,) seconds from the start of the file, in any order.
        tolerance_s: largest allowed distance between a timestamp and its frame.

    Returns:
        uint8 (n, height, width, 3), in the order of `timestamps_s`.

    Raises:
        DatasetError: the file is missing or damaged, or no frame is within the tolerance.
    """
    order = np.argsort(timestamps_s, kind="stable")
    frames: list[np.ndarray] = []
    with _opened(path) as video:
        for time_s in np.asarray(timestamps_s, np.float64)[order]:
            frame = video.frame_at(time_s, tolerance_s)
            if frame is None:
                cause = f"{path} has no frame within {tolerance_s:.4f} s of {time_s:.4f} s: it is cut short"
                raise DatasetError.of("video-short", cause, RESTORE)
            frames.append(frame)
    return np.stack(frames)[np.argsort(order, kind="stable")]


@dataclass(frozen=True)
class VideoProbe:
    """Properties of a video file.

    Attributes:
        frames: the number of frames in its header, or the counted number; 0 if the header has none.
        fps: frames per second.
    """

    frames: int
    fps: float


def probe_video(path: Path, *, count: bool = False) -> VideoProbe:
    """Reads a video's header; with `count` it decodes and counts the frames. Raises DatasetError like `read_frames`."""
    with _opened(path) as video:
        rate = video.stream.average_rate or 0
        return VideoProbe(video.count() if count else video.stream.frames, float(rate))


@contextmanager
def _opened(path: Path) -> Iterator[OpenVideo]:
    """The open file. Exceptions of PyAV become a DatasetError, and the next call opens the file again."""
    import av

    succeeded = False
    try:
        yield _VIDEOS.get(path)
        succeeded = True
    except FileNotFoundError as error:
        raise DatasetError.of("video-missing", f"{path} is missing, but meta/ lists it", RESTORE) from error
    except (
        OSError,
        av.FFmpegError,
        IndexError,
        TypeError,
        ValueError,
        OverflowError,
    ) as error:  # TypeError and so on: damaged files have times that are None or far too large
        raise DatasetError.of("video-damaged", f"{path} cannot be decoded ({error})", RESTORE) from error
    finally:
        if not succeeded:
            _VIDEOS.drop(path)
