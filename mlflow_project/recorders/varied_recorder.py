"""Records one axis of a robustness evaluation: a run for each checkpoint, nested in that of its usual episodes.

Its metrics are named ``vary/...``. It has none of those by which an evaluation is known (`vocabulary.EPISODES`), so
that nothing takes it for one: no comparison, no gate, no list of evaluations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from mlflow_project.comparison.episodes import success_of, success_words, table_row, unsolved
from mlflow_project.comparison.evaluations import Varied
from mlflow_project.recorders.films import log_films
from mlflow_project.recorders.sweep_recorder import SweepRecorder
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.vocabulary import (
    ABOUT_TAG,
    EPISODES_FILE,
    NOT_YET,
    SETTINGS_FILE,
    VARY_AXIS_TAG,
    VARY_STRENGTH_TAG,
    VERB_TAG,
)
from rlinf_isaac.ground.events import (
    EpisodeDone,
    EpisodeKey,
    EpisodeRow,
    EvaluationFilmed,
    EvaluationFinished,
    EvaluationStarted,
    Event,
    VideoSaved,
)
from rlinf_isaac.tasks.variation import Variation


@dataclass
class _Running:
    """A checkpoint whose varied episodes are being played."""

    recorder: Recorder
    settings: Mapping[str, Any]
    rows: dict[EpisodeKey, EpisodeRow] = field(default_factory=dict)
    videos: dict[EpisodeKey, VideoSaved] = field(default_factory=dict)


class VariedRecorder:
    """Records the events of `Engine.evaluate` of one varied arm; call it with every event.

    Args:
        sweep: has recorded the control arm of the same checkpoints, and gets what comes of this one.
        variation: of the arm.
    """

    def __init__(self, sweep: SweepRecorder, variation: Variation) -> None:
        self._sweep, self._variation = sweep, variation
        self._running: dict[int, _Running] = {}

    def __call__(self, event: Event) -> None:
        """Record one event."""
        if isinstance(event, EvaluationStarted):
            self._start(event)
        elif isinstance(event, EpisodeDone):
            self._running[event.row.checkpoint_step].rows[event.row.key] = event.row
        elif isinstance(event, VideoSaved):
            self._running[event.checkpoint_step].videos[event.key] = event
        elif isinstance(event, EvaluationFinished):
            self._finish(event)
        elif isinstance(event, EvaluationFilmed):
            self._log(event.step)

    def _start(self, event: EvaluationStarted) -> None:
        axis, strength = self._variation.axis, self._variation.strength
        control, name = self._sweep.run_of(event.step)
        tags = {VERB_TAG: "eval", VARY_AXIS_TAG: axis, VARY_STRENGTH_TAG: f"{strength:g}"}
        tags |= {f"{ABOUT_TAG}checkpoint": name, f"{ABOUT_TAG}success": NOT_YET}
        recorder = control.start_run(f"{name} {axis}", tags)
        recorder.params({"axis": axis, "strength": strength}, prefix="vary")
        recorder.text(SETTINGS_FILE, json.dumps(event.settings, indent=2) + "\n")
        self._running[event.step] = _Running(recorder, event.settings)

    def _finish(self, event: EvaluationFinished) -> None:
        running, rows = self._running[event.step], self._log(event.step)
        self._sweep.add_varied(event.step, Varied(self._variation.axis, self._variation.strength, tuple(rows)))
        running.recorder.metrics(varied_metrics(rows, running.settings), event.step)
        running.recorder.tags({f"{ABOUT_TAG}success": success_words(success_of(rows))})
        running.recorder.end("FINISHED")

    def _log(self, step: int) -> list[EpisodeRow]:
        """Log the videos and the table; returns the rows."""
        running = self._running[step]
        rows = sorted(running.rows.values(), key=lambda row: row.seed)
        videos = log_films(running.recorder, rows, running.videos)
        rows = [replace(row, video=videos.get(row.key)) for row in rows]
        running.recorder.table(EPISODES_FILE, [table_row(row) for row in rows])
        return rows


def varied_metrics(rows: Sequence[EpisodeRow], settings: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of one varied arm: ``vary/success_once`` with its 95 % Wilson interval, ``vary/episodes``, the rates
    of the other outcomes, and the means of return and length."""
    success = success_of(rows)
    metrics = {
        "vary/success_once": success.rate,
        "vary/success_low": success.low,
        "vary/success_high": success.high,
        "vary/episodes": float(len(rows)),
        "vary/return_mean": fmean(row.episode_return for row in rows),
        "vary/episode_length_mean": fmean(row.length for row in rows),
    }
    failures = unsolved(settings, rows)
    return metrics | {f"vary/{name}_rate": sum(row.outcome == name for row in rows) / len(rows) for name in failures}
