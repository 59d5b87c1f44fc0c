"""Reads frames of an mp4 at increasing times from an open file, by decoding on or by seeking to a keyframe."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.ground.reading import check_regular

MOST_OPEN = 16
"""Number of files that a thread keeps open. A v3.0 dataset has few, long videos, and each open one holds frames of the
decoder in memory."""

_FRAMES_OF_A_SEEK = 3
"""Cost of a seek with its first frame, in decoded frames. A decoder returns the first frame only after it has decoded
some of those that follow."""


class OpenVideo:
    """The video stream of a file, for use by one thread.

    A frame depends on earlier ones, back to a keyframe. So the next wanted frame is reached either by decoding on from
    the last one, or by seeking to the keyframe before it and decoding from there. Older versions of PyAV do not tell
    where the keyframes are. Therefore the cost of a seek is estimated as the mean distance from the keyframe to the
    wanted frame in earlier seeks, and a seek is made if the wanted frame is further ahead than that.

    Args:
        path: the file.
        threads: threads of the decoder; 0 for the number of cores. More than one thread is not faster for the few
            frames after a seek (measured with H.264 and AV1), and every open file has its own threads.

    Raises:
        OSError, av.FFmpegError, IndexError: it is not an mp4 with a video stream that can be decoded.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        import av

        self.path = path
        # The format is fixed, because a playlist could name other files. Invalid text in metadata is not an error.
        self.container = av.open(f"file:{path}", format="mp4", metadata_errors="replace")
        try:
            self.stream = self.container.streams.video[0]
            if self.stream.codec_context is None:
                raise IndexError(f"{path} has a video stream with an unknown codec")
            self.stream.codec_context.thread_count = threads
        except BaseException:
            self.container.close()
            raise
        self._frames: Iterator[Any] = iter(())
        self._last: Any = None  # the last decoded frame: the first one at or after `_since_s`
        self._since_s = 0.0
        self._begun_at: int | None = None  # time stamp of the keyframe to which the last seek led
        self._seeks, self._decoded_s = 0, 0.0

    def close(self) -> None:
        self._frames, self._last = iter(()), None
        self.container.close()

    def frame_at(self, time_s: float, tolerance_s: float) -> np.ndarray | None:
        """The first frame, uint8 (height, width, 3), within `tolerance_s` of `time_s`; None if there is none."""
        earliest = time_s - tolerance_s
        if self._last is None or not 0 <= earliest - self._since_s <= self._cost_of_a_seek():
            self._seek(earliest)
        while self._last is not None and self._last.time < earliest:
            self._last = next(self._frames, None)
        self._since_s = earliest
        if self._last is None or self._last.time > time_s + tolerance_s:
            return None
        return self._last.to_ndarray(format="rgb24")

    def count(self) -> int:
        """The number of frames, found by decoding all of them."""
        whole = OpenVideo(self.path, threads=0)
        try:
            return sum(1 for _ in whole.container.decode(whole.stream))
        finally:
            whole.close()

    def _cost_of_a_seek(self) -> float:
        """Expected cost of a seek, as seconds of video that could be decoded in the same time."""
        if not self._seeks:
            return 0.0
        rate = self.stream.average_rate
        return self._decoded_s / self._seeks + (_FRAMES_OF_A_SEEK / float(rate) if rate else 0.0)

    def _seek(self, time_s: float) -> None:
        """Seek to a keyframe and decode its frame. It is not after `time_s`, unless the video begins later."""
        assert self.stream.time_base is not None  # every stream of an mp4 has one
        sought = max(0, int(time_s / self.stream.time_base))
        for target in dict.fromkeys((sought, 0)):
            self.container.seek(target, stream=self.stream, backward=True)
            self._frames = self._from_here()
            self._last = next(self._frames, None)
            if self._last is not None and self._last.pts == self._begun_at and self._last.time <= time_s:
                break
            # The keyframe itself cannot be decoded on its own (x264's intra-refresh): seek to the start of the file.
        if self._last is not None:
            self._seeks, self._decoded_s = self._seeks + 1, self._decoded_s + max(0.0, time_s - self._last.time)

    def _from_here(self) -> Iterator[Any]:
        """Frames from the container's current keyframe on. Frames that are shown before it are skipped, because they
        depend on an earlier keyframe."""
        self._begun_at = None
        for packet in self.container.demux(self.stream):
            self._begun_at = packet.pts if self._begun_at is None else self._begun_at
            for frame in packet.decode():
                if self._begun_at is None or (frame.pts is not None and frame.pts >= self._begun_at):
                    yield frame


class OpenVideos(threading.local):
    """The open files of each thread, at most `MOST_OPEN`. The least recently used one is closed first."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, tuple[tuple[int, ...], OpenVideo]] = OrderedDict()

    def get(self, path: Path) -> OpenVideo:
        """The open file at `path`. It is opened again if the file was replaced. Raises like `OpenVideo`."""
        status = check_regular(path)
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        entry = self._open.get(path)
        if entry is None or entry[0] != stamp:
            self.drop(path)
            self._open[path] = (stamp, OpenVideo(path))
            if len(self._open) > MOST_OPEN:
                self.drop(next(iter(self._open)))
        self._open.move_to_end(path)
        return self._open[path][1]

    def drop(self, path: Path) -> None:
        """Close a file, if it is open."""
        with suppress(KeyError):
            self._open.pop(path)[1].close()
