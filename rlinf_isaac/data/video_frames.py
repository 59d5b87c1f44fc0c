"""Frames of an mp4 at given times, through PyAV (the `video` extra). Only datasets with video features need it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.data.lerobot_files import RESTORE
from rlinf_isaac.errors import DatasetError


def read_frames(path: Path, timestamps_s: np.ndarray, tolerance_s: float) -> np.ndarray:
    """Decode the frame nearest to each timestamp.

    Args:
        path: the video file.
        timestamps_s: (n,) seconds from the start of the file, in any order.
        tolerance_s: largest allowed distance between a timestamp and its frame.

    Returns:
        uint8 (n, height, width, 3), in the order of `timestamps_s`.

    Raises:
        DatasetError: PyAV is not installed, the file is missing or damaged, or no frame is near enough.
    """
    order = np.argsort(timestamps_s, kind="stable")
    wanted = np.asarray(timestamps_s, np.float64)[order]
    with _opened(path) as stream:
        # Seek to the keyframe before the first wanted time, then decode forward: frames build on earlier ones.
        earliest = max(0, int((wanted[0] - tolerance_s) / stream.time_base))
        stream.container.seek(earliest, stream=stream, backward=True)
        frames = _nearest(stream.container.decode(stream), wanted, tolerance_s)
    if len(frames) < len(wanted):
        cause = f"{path} has no frame within {tolerance_s:.4f} s of {wanted[len(frames)]:.4f} s: it is cut short"
        raise DatasetError.of("video-short", cause, RESTORE)
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
    with _opened(path) as stream:
        rate = stream.average_rate or 0
        return VideoProbe(sum(1 for _ in stream.container.decode(stream)) if count else stream.frames, float(rate))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The video stream of a file, and what PyAV raises while it is used as a DatasetError."""
    try:
        import av
    except ImportError as error:
        cause = f"{path} is a video, and PyAV, which reads it, is not installed"
        raise DatasetError.of("no-pyav", cause, "run pip install 'rlinf-isaac[video]'") from error
    try:
        with av.open(str(path), metadata_errors="replace") as container:  # titles and such, which nobody looks at
            yield container.streams.video[0]
    except FileNotFoundError as error:
        raise DatasetError.of("video-missing", f"{path} is missing, but meta/ lists it", RESTORE) from error
    except (av.FFmpegError, IndexError, TypeError, ValueError, OverflowError) as error:  # times that are None or absurd
        raise DatasetError.of("video-damaged", f"{path} cannot be decoded ({error})", RESTORE) from error


def _nearest(decoded, wanted: np.ndarray, tolerance_s: float) -> list[np.ndarray]:
    """Walk decoded frames and sorted times in step; stops at the first time without a frame near enough."""
    chosen: list[np.ndarray] = []
    for frame in decoded:
        while len(chosen) < len(wanted) and abs(frame.time - wanted[len(chosen)]) <= tolerance_s:
            chosen.append(frame.to_ndarray(format="rgb24"))
        if len(chosen) == len(wanted) or frame.time > wanted[len(chosen)] + tolerance_s:
            break
    return chosen
