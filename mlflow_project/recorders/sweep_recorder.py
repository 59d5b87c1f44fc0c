"""Records an evaluation sweep: a parent run, and nested runs that differ only in the checkpoint.

A nested run has the episodes of one checkpoint: success rates with intervals, the table, videos, and the bundle's
files. The parent run has the comparison: success over checkpoint steps, the best checkpoint, and a leaderboard.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from mlflow_project.comparison.compare import Comparison, compare
from mlflow_project.comparison.episodes import extra_means, success_of, success_words, table_row, unsolved
from mlflow_project.comparison.evaluations import Evaluation, Varied, mismatch_tags
from mlflow_project.comparison.robustness import robustness_metrics
from mlflow_project.comparison.success_rules import audit_metrics
from mlflow_project.lineage.provenance import DatasetInput, simulator_tags
from mlflow_project.markdown import plain
from mlflow_project.recorders.comparison_recorder import record_comparison, save_comparison_view
from mlflow_project.recorders.films import log_films
from mlflow_project.recorders.logged_checkpoints import (
    UploadWeights,
    bundle_tags,
    log_bundle_files,
    log_model,
    training_tags,
)
from mlflow_project.tracking import ui
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.vocabulary import (
    ABOUT_TAG,
    COMPARISON_PAGE,
    EPISODES,
    EPISODES_FILE,
    EXPERIMENT_PLACEHOLDER,
    LENGTH_MEAN,
    MISMATCH_TAG,
    NOT_YET,
    NOTE_TAG,
    PLANNED_TAG,
    RETURN_MEAN,
    SETTINGS_FILE,
    SUCCESS,
    SUCCESS_HIGH,
    SUCCESS_LOW,
    TASK_METRIC,
    TASK_RATE,
    VARIED_TAG,
    VERB_TAG,
    run_placeholder,
)
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.ground.events import (
    EpisodeDone,
    EpisodeKey,
    EpisodeRow,
    EvaluationFilmed,
    EvaluationFinished,
    EvaluationStarted,
    Event,
    FileSaved,
    Metrics,
    MismatchAllowed,
    VideoSaved,
)

_SUCCESS_TAG = f"{ABOUT_TAG}success"
NO_METRIC_NAME = re.compile(r"[^\w./ -]")
"""What MLflow does not take in the name of a metric; an environment may have any names."""


@dataclass
class _Running:
    """A checkpoint that is being evaluated, with its episodes so far."""

    recorder: Recorder
    name: str
    position: int
    tags: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: dict[EpisodeKey, EpisodeRow] = field(default_factory=dict)
    videos: dict[EpisodeKey, VideoSaved] = field(default_factory=dict)
    mismatch: bool = False


class SweepRecorder:
    """Records the events of `Engine.evaluate`; call it with every event.

    Attributes:
        comparison: comparison of the finished checkpoints; None before the first one is finished.
    """

    def __init__(
        self,
        parent: Recorder,
        *,
        params: Mapping[str, Any],
        model_name: str,
        dataset: DatasetInput,
        name: str = "sweep",
        planned: int | None = None,
        run_name: Callable[[EvaluationStarted, Bundle], str] = lambda event, bundle: bundle.name,
        position: Callable[[EvaluationStarted], int] = lambda event: event.step,
        upload_weights: UploadWeights = "auto",
    ) -> None:
        """Args:
        parent: recorder of the sweep's run.
        params: the resolved config, a nested mapping; logged as ``cfg/...`` in every nested run.
        model_name: model name from `logged_checkpoints.model_name`, for checkpoints that MLflow does not know yet.
        dataset: the episodes of the evaluation (`provenance.evaluation_dataset`); metrics are linked to it.
        name: title of the comparison.
        planned: number of checkpoints in the sweep; the gate of a promotion needs it.
        run_name: returns the checkpoint's name, which its nested run has.
        position: returns the checkpoint's place on the axis of ``sweep/*``. Steps are no such axis where one of them
            counts optimiser steps and another iterations of reinforcement learning.
        upload_weights: whether weights are uploaded to the nested runs.
        """
        self.comparison: Comparison | None = None
        self._parent = parent
        self._finished: list[Evaluation] = []
        self._params = params
        self._model_name = model_name
        self._dataset = dataset
        self._name = name
        self._planned = {} if planned is None else {PLANNED_TAG: str(planned)}
        self._run_name, self._position = run_name, position
        self._upload_weights: UploadWeights = upload_weights
        self._evaluations: dict[int, _Running] = {}
        parent.dataset(dataset)
        save_comparison_view(parent)

    def __call__(self, event: Event) -> None:
        """Record one event."""
        if isinstance(event, EvaluationStarted):
            self._start(event)
        elif isinstance(event, MismatchAllowed):
            self._mark_mismatch(event)
        elif isinstance(event, EpisodeDone):
            self._evaluations[event.row.checkpoint_step].rows[event.row.key] = event.row
        elif isinstance(event, VideoSaved):
            self._evaluations[event.checkpoint_step].videos[event.key] = event
        elif isinstance(event, EvaluationFinished):
            self._finish(event)
        elif isinstance(event, EvaluationFilmed):
            self._film(event)
        elif isinstance(event, Metrics):
            self._parent.metrics(event.values, event.step, time_s=event.time)
        elif isinstance(event, FileSaved):
            self._parent.artifact(event.path, event.name)

    def run_of(self, step: int) -> tuple[Recorder, str]:
        """The recorder and the name of a checkpoint's run."""
        return self._evaluations[step].recorder, self._evaluations[step].name

    def add_varied(self, step: int, varied: Varied) -> None:
        """Add the episodes of a checkpoint that has finished along one axis, in place of earlier ones of this axis."""
        (evaluation,) = (each for each in self._finished if each.step == step)
        others = tuple(each for each in evaluation.varied if each.axis != varied.axis)
        evaluation = replace(evaluation, varied=(*others, varied))
        recorder, _ = self.run_of(step)
        recorder.metrics(robustness_metrics(evaluation), step)
        recorder.tags({VARIED_TAG: ",".join(each.axis for each in evaluation.varied)})
        self._finished = [evaluation if each.step == step else each for each in self._finished]
        self.comparison = compare(self._finished)
        record_comparison(self._parent, self.comparison, self._name)

    def _start(self, event: EvaluationStarted) -> None:
        bundle = read_bundle(event.path, verify=False)
        simulator = simulator_tags(event.settings.get("environment", {}))
        self._parent.tags(simulator)
        name, tags = self._run_name(event, bundle), bundle_tags(bundle) | simulator | self._planned
        tags |= training_tags(event.assumed, event.unsaid) | {VERB_TAG: "eval", f"{ABOUT_TAG}checkpoint": name}
        tags |= {_SUCCESS_TAG: NOT_YET}
        recorder = self._parent.start_run(name, tags)
        recorder.params(self._params)
        # The only param that differs. Path and sha256 are tags, so that MLflow's compare page has no axes for them.
        recorder.params({"step": event.step}, prefix="checkpoint")
        recorder.dataset(self._dataset)
        log_model(recorder, bundle, self._model_name, "input", name)
        log_bundle_files(recorder, bundle, "checkpoint", self._upload_weights, made=False)
        if event.settings:
            recorder.text(SETTINGS_FILE, json.dumps(event.settings, indent=2) + "\n")
        self._evaluations[event.step] = _Running(recorder, name, self._position(event), tags, event.settings)

    def _mark_mismatch(self, event: MismatchAllowed) -> None:
        """Tag the nested run and the sweep; an evaluation with a mismatch can never lead to a promotion."""
        tags = mismatch_tags([event.problem])
        self._evaluations[event.step].recorder.tags(tags)
        self._evaluations[event.step].mismatch = True
        self._parent.tags(tags)

    def _finish(self, event: EvaluationFinished) -> None:
        evaluation = self._evaluations[event.step]
        recorder = evaluation.recorder
        rows = self._log_episodes(evaluation)
        recorder.metrics(
            evaluation_metrics(rows, evaluation.settings),
            event.step,
            model=event.digest,
            dataset=(self._dataset.name, self._dataset.digest),
        )
        said = success_words(success_of(rows))
        page = ui.artifact_link("", EXPERIMENT_PLACEHOLDER, run_placeholder(self._parent.run), COMPARISON_PAGE)
        note = f"**{plain(evaluation.name)}: success {said} episodes** (95 % interval). [Comparison]({page})"
        recorder.tags({_SUCCESS_TAG: said, NOTE_TAG: note})
        recorder.end("FINISHED")
        tags = dict(evaluation.tags) | ({MISMATCH_TAG: "true"} if evaluation.mismatch else {})
        self._finished.append(
            Evaluation(
                run=run_placeholder(recorder.run),
                name=evaluation.name,
                experiment=EXPERIMENT_PLACEHOLDER,
                sweep=run_placeholder(self._parent.run),
                sweep_name=self._name,
                step=event.step,
                checkpoint=event.digest,
                rows=tuple(rows),
                settings=evaluation.settings,
                tags=tags,
            )
        )
        self._compare(evaluation.position)

    def _film(self, event: EvaluationFilmed) -> None:
        """Log the films that were made after the evaluation had finished: its run has ended, but takes them."""
        rows = self._log_episodes(self._evaluations[event.step])
        self._finished = [
            replace(each, rows=tuple(rows)) if each.checkpoint == event.digest else each for each in self._finished
        ]
        self.comparison = compare(self._finished)
        record_comparison(self._parent, self.comparison, self._name)

    def _log_episodes(self, evaluation: _Running) -> list[EpisodeRow]:
        """Log the videos and the table of the episodes; returns its rows."""
        rows = sorted(evaluation.rows.values(), key=lambda row: (row.task, row.seed))
        videos = log_films(evaluation.recorder, rows, evaluation.videos)
        rows = [replace(row, video=videos.get(row.key)) for row in rows]
        evaluation.recorder.table(EPISODES_FILE, [table_row(row) for row in rows])
        return rows

    def _compare(self, position: int) -> None:
        """Update the comparison in the parent run after every checkpoint, so that an interrupted sweep has one, too."""
        latest = self._finished[-1]
        success = latest.success
        self._parent.metrics(
            {
                "sweep/success_once": success.rate,
                "sweep/success_low": success.low,
                "sweep/success_high": success.high,
            },
            position,
        )
        self.comparison = compare(self._finished)
        first = self.comparison.standings[0]
        self._parent.metrics({"sweep/best_success_once": first.success.rate}, len(self._finished))
        self._parent.tags(
            {
                "best.checkpoint.step": first.evaluation.step,
                "best.checkpoint.sha256": first.evaluation.checkpoint,
            }
        )
        record_comparison(self._parent, self.comparison, self._name)


def evaluation_metrics(rows: Sequence[EpisodeRow], settings: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of one evaluated checkpoint.

    These are ``eval/success_once`` with its 95 % Wilson interval ``eval/success_low`` and ``eval/success_high``;
    ``eval/episodes``; of several tasks the macro average is the rate, and ``eval/task/<name>/success_once``
    (``success_low``, ``success_high``) has that of each; the rates of the other outcomes; the means of
    return and length (control steps); for each subtask flag the rate of episodes that reached it; and the mean of every
    further number of the episodes. Where episodes are judged by a second success rule, `audit_metrics`.
    """
    n, success = len(rows), success_of(rows)
    metrics = {
        SUCCESS: success.rate,
        SUCCESS_LOW: success.low,
        SUCCESS_HIGH: success.high,
        EPISODES: float(n),
        RETURN_MEAN: fmean(row.episode_return for row in rows),
        LENGTH_MEAN: fmean(row.length for row in rows),
    }
    failures = unsolved(settings, rows)
    metrics |= {f"eval/{outcome}_rate": sum(row.outcome == outcome for row in rows) / n for outcome in failures}
    for task in sorted({row.task for row in rows if row.task}):
        own = success_of([row for row in rows if row.task == task])
        for name, value in ((TASK_RATE, own.rate), ("/success_low", own.low), ("/success_high", own.high)):
            metrics[f"{TASK_METRIC}{NO_METRIC_NAME.sub('_', task)}{name}"] = value
    flags = sorted({flag for row in rows for flag in row.subtasks})
    metrics |= {f"eval/subtask/{flag}": sum(row.subtasks.get(flag, False) for row in rows) / n for flag in flags}
    metrics |= audit_metrics(rows)
    return metrics | {f"eval/extra/{NO_METRIC_NAME.sub('_', name)}": mean for name, mean in extra_means(rows).items()}
