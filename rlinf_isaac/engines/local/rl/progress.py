"""Progress within an iteration: what is played, and what is learned."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from typing import TypeVar

from rlinf_isaac.ground.events import Progress

T = TypeVar("T")
EVERY_S = 1.0
"""Seconds between two events of progress."""


class IterationProgress:
    """Tells of the progress of a training.

    Args:
        done, total: iterations that are done, and all of them.
    """

    def __init__(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self._told = time.monotonic()

    def playing(self, playing: Generator[int, None, T], episodes: int) -> Generator[Progress, None, T]:
        """Follow a rollout, which yields how many of its episodes have ended."""
        return self._follow(_pairs(playing, episodes), "episodes")

    def updating(self, updating: Generator[tuple[int, int], None, T]) -> Generator[Progress, None, T]:
        """Follow an update, which yields its minibatches so far and in all."""
        return self._follow(updating, "minibatches")

    def finished(self, note: str) -> Progress:
        """An iteration is done."""
        self.done += 1
        return Progress("rl", self.done, self.total, note)

    def _follow(self, work: Generator[tuple[int, int], None, T], what: str) -> Generator[Progress, None, T]:
        began = time.monotonic()
        with closing(work):
            while True:
                try:
                    number, count = next(work)
                except StopIteration as end:
                    return end.value
                now = time.monotonic()
                if number and now - self._told >= EVERY_S:  # so `now` is later than `began`, too
                    self._told = now
                    note = f"{number} of {count} {what}, {number / (now - began):.2g}/s"
                    yield Progress("rl", self.done, self.total, note)


def _pairs(playing: Generator[int, None, T], episodes: int) -> Generator[tuple[int, int], None, T]:
    with closing(playing):
        while True:
            try:
                number = next(playing)
            except StopIteration as end:
                return end.value
            yield number, episodes
