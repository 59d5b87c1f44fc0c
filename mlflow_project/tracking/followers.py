"""Followers work beside a verb, from its journal: reports to other trackers, and notifications.

    with followed_by(notifier, reporter):
        with tracked_run("sft", output=...):   # starts them, and closes them at its end
            ...

A follower reads what the journal has on disk and never writes to it. Whatever goes wrong in one is logged, and neither
the verb nor the upload to MLflow notices.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from mlflow_project.tracking.recorder import Recorder
from mlflow_project.tracking.uploader import Uploader

logger = logging.getLogger("mlflow_project")


class Followed(Protocol):
    """What a follower may know of the outermost run of a verb (`runs.TrackedRun`)."""

    @property
    def recorder(self) -> Recorder: ...

    @property
    def uploader(self) -> Uploader: ...

    @property
    def tracking_uri(self) -> str: ...


class Follower(Protocol):
    """Follows the journal of one verb. Neither method may block for long."""

    def start(self, run: Followed) -> None:
        """Begin to follow the journal of `run`, the outermost run of a verb. Its first lines may be written already."""
        ...

    def close(self, limit_s: float) -> None:
        """Finish what the journal has, in `limit_s` seconds at most, and stop."""
        ...


_chosen: tuple[Follower, ...] = ()


@contextmanager
def followed_by(*followers: Follower) -> Iterator[None]:
    """Let the next outermost `tracked_run` of the block have these followers."""
    global _chosen
    before, _chosen = _chosen, followers
    try:
        yield
    finally:
        _chosen = before


class Company:
    """The followers that one run has: those of the innermost `followed_by`."""

    def __init__(self, run: Followed) -> None:
        self._followers = []
        for follower in _chosen:
            try:
                follower.start(run)
            except Exception as error:  # must not stop the verb
                logger.warning("%s does not work: %s", type(follower).__name__, error, exc_info=error)
            else:
                self._followers.append(follower)

    def close(self, limit_s: float) -> None:
        """Close all of them, in `limit_s` seconds together."""
        deadline = time.monotonic() + limit_s
        while self._followers:
            follower = self._followers.pop()
            try:
                follower.close(max(0.0, deadline - time.monotonic()))
            except Exception as error:  # must not stop the verb
                logger.warning("%s did not end: %s", type(follower).__name__, error, exc_info=error)
