"""A film of an episode, and its trace: the states that the policy saw, what it predicted, and what was executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.ground import atomic
from rlinf_isaac.media.video import VideoWriter
from rlinf_isaac.tasks.task import Task

DIGITS = 5
"""Significant digits of the numbers in a trace."""


def trace_of(film: Path) -> Path:
    """The file of a film's trace, beside it."""
    return film.with_suffix(".trace.json")


class Film:
    """A `ChunkSink` that encodes the frames of an episode and keeps its trace.

    The trace is JSON: ``seed``; ``hz``, control steps per second; ``state``, ``action`` with the ``names`` of their
    dims; ``at``, the control step of each policy call and, last, that of the end; ``states``, a state for each of
    these; ``predicted``, for each call the whole horizon of actions; ``executed``, an action per control step as it was
    sent to the environment. All are in robot units.

    Args:
        video: the writer of the film, which the caller opens and closes.
        seed: of the episode.
        task: gives the names of the dims.
    """

    def __init__(self, video: VideoWriter, seed: int, task: Task) -> None:
        self._video, self._seed, self._task = video, seed, task
        self._at: list[int] = [0]
        self._states: list[list[float]] = []
        self._predicted: list[list[list[float]]] = []
        self._executed: list[list[float]] = []

    def append(self, frame: np.ndarray) -> None:
        """Add a (h, w, 3) uint8 frame."""
        self._video.append(frame)

    def chunk(self, state: np.ndarray, predicted: np.ndarray, executed: np.ndarray) -> None:
        """Add a chunk; see `ChunkSink.chunk`."""
        self._states.append(_numbers(state))
        self._predicted.append(_numbers(predicted))
        self._executed += _numbers(executed)
        self._at.append(len(self._executed))

    def ended(self, state: np.ndarray) -> None:
        """Add the state (D,) at the end of the episode."""
        self._states.append(_numbers(state))

    def close(self) -> None:
        """Finish the film, and write its trace beside it."""
        self._video.close()
        atomic.write_file(trace_of(self._video.path), json.dumps(self.trace(), separators=(",", ":")))

    def trace(self) -> dict[str, Any]:
        """The trace as a JSON-ready dict."""
        return {
            "seed": self._seed,
            "hz": self._task.control_hz,
            "state": list(self._task.state.labels),
            "action": list(self._task.action.labels),
            "at": self._at,
            "states": self._states,
            "predicted": self._predicted,
            "executed": self._executed,
        }


def _numbers(values: np.ndarray) -> list[Any]:
    """Nested lists of floats with `DIGITS` significant digits; NaN and infinity, which JSON lacks, become None."""
    if values.ndim > 1:
        return [_numbers(each) for each in values]
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in values.tolist()]
