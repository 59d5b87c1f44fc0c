"""Frames of an mp4 at given times, through PyAV (the `video` extra). Only datasets with video features need it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlinf_isaac.errors import DatasetError

_RESTORE = "restore the video from where the dataset was copied or recorded"


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
    try:
        import av
    except ImportError as error:
        cause = f"{path} is a video, and PyAV, which reads it, is not installed"
        raise DatasetError.of("no-pyav", cause, "run pip install 'rlinf-isaac[video]'") from error
    order = np.argsort(timestamps_s, kind="stable")
    wanted = np.asarray(timestamps_s, np.float64)[order]
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            # Seek to the keyframe before the first wanted time, then decode forward: frames build on earlier ones.
            container.seek(max(0, int((wanted[0] - tolerance_s) / stream.time_base)), stream=stream, backward=True)
            frames = _nearest(container.decode(stream), wanted, tolerance_s)
    except FileNotFoundError as error:
        raise DatasetError.of("video-missing", f"{path} is missing, but meta/ lists it", _RESTORE) from error
    except (av.FFmpegError, IndexError) as error:
        raise DatasetError.of("video-damaged", f"{path} cannot be decoded ({error})", _RESTORE) from error
    if len(frames) < len(wanted):
        cause = f"{path} has no frame within {tolerance_s:.4f} s of {wanted[len(frames)]:.4f} s: it is cut short"
        raise DatasetError.of("video-short", cause, _RESTORE)
    return np.stack(frames)[np.argsort(order, kind="stable")]


def _nearest(decoded, wanted: np.ndarray, tolerance_s: float) -> list[np.ndarray]:
    """Walk decoded frames and sorted times in step; stops at the first time without a frame near enough."""
    chosen: list[np.ndarray] = []
    for frame in decoded:
        while len(chosen) < len(wanted) and abs(frame.time - wanted[len(chosen)]) <= tolerance_s:
            chosen.append(frame.to_ndarray(format="rgb24"))
        if len(chosen) == len(wanted) or frame.time > wanted[len(chosen)] + tolerance_s:
            break
    return chosen
