"""Frames of an mp4 at given times, through PyAV. Only datasets with video features need it."""

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
    """Decode the first frame that is near enough to each timestamp. Files stay open for the next call (`OpenVideos`).

    Args:
        path: the video file.
        timestamps_s: (n,) seconds from the start of the file, in any order.
        tolerance_s: largest allowed distance between a timestamp and its frame.

    Returns:
        uint8 (n, height, width, 3), in the order of `timestamps_s`.

    Raises:
        DatasetError: the file is missing or damaged, or no frame is near enough.
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
    """What a video file holds.

    Attributes:
        frames: as its header says, or as they were counted; 0 if the header does not say.
        fps: frames per second.
    """

    frames: int
    fps: float


def probe_video(path: Path, *, count: bool = False) -> VideoProbe:
    """Header of a video; with `count` every frame is decoded and counted. Raises DatasetError as `read_frames` does."""
    with _opened(path) as video:
        rate = video.stream.average_rate or 0
        return VideoProbe(video.count() if count else video.stream.frames, float(rate))


@contextmanager
def _opened(path: Path) -> Iterator[OpenVideo]:
    """The open file, and what PyAV raises while it is used as a DatasetError; after one it is opened anew."""
    import av

    whole = False
    try:
        yield _VIDEOS.get(path)
        whole = True
    except FileNotFoundError as error:
        raise DatasetError.of("video-missing", f"{path} is missing, but meta/ lists it", RESTORE) from error
    except (
        OSError,
        av.FFmpegError,
        IndexError,
        TypeError,
        ValueError,
        OverflowError,
    ) as error:  # times that are None or absurd
        raise DatasetError.of("video-damaged", f"{path} cannot be decoded ({error})", RESTORE) from error
    finally:
        if not whole:
            _VIDEOS.drop(path)
