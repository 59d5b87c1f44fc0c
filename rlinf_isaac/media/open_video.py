"""One mp4 that stays open: frames at rising times, decoded from the nearest keyframe or from where the decoder is."""

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
"""Files that a thread keeps open: a v3.0 dataset has few and long ones, and each holds a decoder's frames in memory."""

_FRAMES_OF_A_SEEK = 3
"""How many frames are decoded in the time that a seek itself takes, and the first frame after it: one frame that is
shown after others have to be decoded."""


class OpenVideo:
    """The video stream of a file, which one thread reads.

    A frame builds on those before it, back to a keyframe. So the next wanted one is reached in one of two ways: decode
    on from the last one, or seek to the keyframe before it and decode from there. Where keyframes are is not asked of
    the container (older versions of PyAV do not tell): how far behind a wanted frame they lay so far, on average,
    is what a seek is expected to cost, and what lies further ahead than that is sought.

    Args:
        path: the file.
        threads: of the decoder, 0 for as many as there are cores. For the few frames after a seek more than one are no
            faster (measured with H.264 and AV1), and every open file has its own.

    Raises:
        OSError, av.FFmpegError, IndexError: it is not an mp4 with a video stream that can be decoded.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        import av

        self.path = path
        # No playlist in its place, which could name other files; nobody looks at titles and such.
        self.container = av.open(f"file:{path}", format="mp4", metadata_errors="replace")
        try:
            self.stream = self.container.streams.video[0]
            if self.stream.codec_context is None:
                raise IndexError(f"{path} has a video stream of no codec that is known here")
            self.stream.codec_context.thread_count = threads
        except BaseException:
            self.container.close()
            raise
        self._frames: Iterator[Any] = iter(())
        self._last: Any = None  # the last decoded frame, and from when on it is the first one
        self._since_s = 0.0
        self._begun_at: int | None = None  # the time stamp of the keyframe that the last seek found
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
        """How many frames there are, each of which is decoded."""
        whole = OpenVideo(self.path, threads=0)
        try:
            return sum(1 for _ in whole.container.decode(whole.stream))
        finally:
            whole.close()

    def _cost_of_a_seek(self) -> float:
        """Seconds of video that could be decoded in the time of a seek."""
        if not self._seeks:
            return 0.0
        rate = self.stream.average_rate
        return self._decoded_s / self._seeks + (_FRAMES_OF_A_SEEK / float(rate) if rate else 0.0)

    def _seek(self, time_s: float) -> None:
        """Decode the first frame that a seek gives, which is not after `time_s` unless the file begins later."""
        assert self.stream.time_base is not None  # streams of mp4 have one
        sought = max(0, int(time_s / self.stream.time_base))
        for target in dict.fromkeys((sought, 0)):
            self.container.seek(target, stream=self.stream, backward=True)
            self._frames = self._from_here()
            self._last = next(self._frames, None)
            if self._last is not None and self._last.pts == self._begun_at and self._last.time <= time_s:
                break
            # A keyframe from which later frames alone can be decoded (x264's intra-refresh): begin with the first one.
        if self._last is not None:
            self._seeks, self._decoded_s = self._seeks + 1, self._decoded_s + max(0.0, time_s - self._last.time)

    def _from_here(self) -> Iterator[Any]:
        """Frames from the keyframe on which the container stands; those shown before it need an earlier one."""
        self._begun_at = None
        for packet in self.container.demux(self.stream):
            self._begun_at = packet.pts if self._begun_at is None else self._begun_at
            for frame in packet.decode():
                if self._begun_at is None or (frame.pts is not None and frame.pts >= self._begun_at):
                    yield frame


class OpenVideos(threading.local):
    """The files that each thread has open, at most `MOST_OPEN`; the least recently used one makes room."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, tuple[tuple[int, ...], OpenVideo]] = OrderedDict()

    def get(self, path: Path) -> OpenVideo:
        """The open file, opened anew where another one lies at `path` now. Raises as `OpenVideo`."""
        status = check_regular(path)
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._open.get(path)
        if known is None or known[0] != stamp:
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
