"""Reads evaluations from the MLflow store: a checkpoint, its episode rows, and the settings that determine them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlflow_project.comparison.episodes import episode_row, success_of
from mlflow_project.tracking.unreachable import not_in_store
from mlflow_project.vocabulary import (
    EPISODES,
    EPISODES_FILE,
    MISMATCH_OF_TAG,
    MISMATCH_TAG,
    PARENT_RUN_TAG,
    RUN_ID,
    SETTINGS_FILE,
    VARIED_TAG,
    VARY_AXIS_TAG,
    VARY_STRENGTH_TAG,
    lineage_tag,
)
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.ground.events import EpisodeKey, EpisodeRow
from rlinf_isaac.ground.reading import read_json
from rlinf_isaac.stats.rates import RateEstimate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MAX_BYTES = 100_000_000
"""Largest table or settings file that is read; no evaluation has as much."""


@dataclass(frozen=True)
class Varied:
    """The episodes of a checkpoint along one axis of its robustness (`Variation`), on the seeds of its evaluation."""

    axis: str
    strength: float
    rows: tuple[EpisodeRow, ...]

    @property
    def successes(self) -> dict[EpisodeKey, bool]:
        """Seed -> success."""
        return {row.key: row.success for row in self.rows}


@dataclass(frozen=True)
class Evaluation:
    """One evaluated checkpoint.

    Attributes:
        run: MLflow's run id, or ``{{run:<local uuid>}}`` while the run is being recorded (`operations`).
        name: name of the run.
        experiment: MLflow's id of the experiment, or ``{{experiment}}`` while the run is being recorded.
        sweep: run id of its sweep; the evaluations of one sweep differ only in the checkpoint.
        sweep_name: name of the sweep's run.
        step: optimiser step of the checkpoint.
        checkpoint: sha256 of the bundle.
        rows: episodes in the order of tasks and seeds; `EpisodeRow.video` is an artifact path of the run.
        settings: `EvaluationStarted.settings`; empty if they were not recorded.
        tags: tags of the run (digests as ``lineage.<link>.sha256``, `MISMATCH_TAG`).
        sweep_tags: tags of the sweep's run (commit, command); empty while it is being recorded.
        began_s: when the run began, in Unix seconds; None while it is being recorded.
        varied: the same seeds along each axis of robustness; they are no part of `rows`.
    """

    run: str
    name: str
    experiment: str
    sweep: str
    sweep_name: str
    step: int
    checkpoint: str
    rows: tuple[EpisodeRow, ...]
    settings: Mapping[str, Any]
    tags: Mapping[str, str]
    sweep_tags: Mapping[str, str] = field(default_factory=dict)
    began_s: float | None = None
    varied: tuple[Varied, ...] = ()

    @property
    def successes(self) -> dict[EpisodeKey, bool]:
        """Seed, or (seed, task) where there are several tasks -> success, in the order of the rows."""
        return {row.key: row.success for row in self.rows}

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of a checkpoint of several, in their order; empty of a single one."""
        own = {row.task for row in self.rows if row.task}
        known = [name for name in self.settings.get("tasks", ()) if name in own]
        return (*known, *sorted(own - {*known}))

    @property
    def success(self) -> RateEstimate:
        """The success rate; of several tasks their macro average."""
        return success_of(self.rows)

    @property
    def task(self) -> str:
        """The task, or the tasks with commas between them."""
        return ", ".join(self.tasks) or str(self.settings.get("environment", {}).get("task", ""))

    def of_task(self, name: str) -> tuple[EpisodeRow, ...]:
        """The episodes of one task."""
        return tuple(row for row in self.rows if row.task == name)

    @property
    def parent(self) -> str | None:
        """sha256 of the checkpoint from which this one was trained, or None."""
        return self.tags.get(lineage_tag("parent"))

    @property
    def stopped_by_rule(self) -> bool:
        """Whether the outcomes decided the number of episodes (``--until-decided``)."""
        return self.settings.get("stop_rule") is not None


def mismatch_tags(allowed: Iterable[Problem]) -> dict[str, str]:
    """Tags of a run that continues in spite of these problems; empty if there are none."""
    tags = {f"{MISMATCH_OF_TAG}{problem.code}": problem.cause for problem in allowed}
    return {MISMATCH_TAG: "true"} | tags if tags else {}


def run_id_in(text: str) -> str:
    """The run id in what a person typed: the id itself, or a link of the MLflow UI (the last id in it).

    Raises:
        InvalidJob: `text` contains no run id.
    """
    ids = RUN_ID.findall(text)
    if not ids:
        cause = f"{text!r} contains no run id (32 hex digits)"
        cure = "pass the id of a run, or its link; for a registered model `serve models:/NAME@ALIAS` or `lineage`"
        raise InvalidJob.of("unknown-run", cause, cure)
    return ids[-1]


def read_evaluations(client: MlflowClient, runs: Sequence[str]) -> list[Evaluation]:
    """All finished evaluations among these runs and the runs nested in them at any depth; each once, oldest first.

    Args:
        client: client of the store.
        runs: run ids, e.g. of a sweep, of `main`, or of one evaluation.

    Raises:
        InvalidJob: lists all problems: runs that are not in the store, runs without a finished evaluation, and tables
            that cannot be read.
    """
    from mlflow.exceptions import MlflowException

    problems, evaluations = [], {}
    for run_id in runs:
        try:
            top = client.get_run(run_id)
        except MlflowException as error:
            problems.append(not_in_store(run_id, error))
            continue
        below = list(_evaluations_below(client, top))
        if not below:
            cause = f"neither run {run_id} ({top.info.run_name}) nor any run nested in it is a finished evaluation"
            problems.append(Problem("no-evaluations", cause, "name a run of eval, rl or main that has evaluated"))
        for run in below:
            if run.info.run_id not in evaluations:
                try:
                    evaluations[run.info.run_id] = _read(client, run)
                except (ValueError, TypeError, KeyError, MlflowException, OSError) as error:
                    cause = f"{EPISODES_FILE} of run {run.info.run_id} cannot be read: {error!r}"
                    problems.append(Problem("bad-episodes", cause, "evaluate again"))
    if problems:
        raise InvalidJob(problems)
    return list(evaluations.values())


def evaluations_of(client: MlflowClient, checkpoint: str) -> list[Evaluation]:
    """All finished evaluations of the checkpoint with this sha256, in any experiment, newest first. Evaluations that
    cannot be read are left out."""
    from mlflow.exceptions import MlflowException

    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    query = f"tags.`checkpoint.sha256` = '{checkpoint}' and metrics.`eval/episodes` > 0 and status = 'FINISHED'"
    evaluations = []
    for run in client.search_runs(experiments, query, max_results=1000, order_by=["attributes.start_time DESC"]):
        with suppress(ValueError, TypeError, KeyError, MlflowException, OSError):
            evaluations.append(_read(client, run))
    return [evaluation for evaluation in evaluations if evaluation.checkpoint == checkpoint]


def _evaluations_below(client: MlflowClient, run: Run) -> list[Run]:
    """The finished evaluations among `run` and the runs nested in it."""
    if EPISODES in run.data.metrics:
        return [run] if run.info.status == "FINISHED" else []
    query = f"tags.{PARENT_RUN_TAG} = '{run.info.run_id}'"
    order = ["attributes.start_time ASC"]
    children: list[Run] = []
    token = None
    while page := client.search_runs([run.info.experiment_id], query, order_by=order, page_token=token):
        children += page
        if not (token := page.token):
            break
    return [evaluation for child in children for evaluation in _evaluations_below(client, child)]


def _read(client: MlflowClient, run: Run) -> Evaluation:
    run_id, tags = run.info.run_id, run.data.tags
    with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
        rows = _rows(client, run_id, scratch)
        settings = {}
        if any(entry.path == SETTINGS_FILE for entry in client.list_artifacts(run_id)):
            settings = read_json(client.download_artifacts(run_id, SETTINGS_FILE, scratch), MAX_BYTES)
    sweep = client.get_run(tags.get(PARENT_RUN_TAG, run_id))
    return Evaluation(
        run=run_id,
        name=str(run.info.run_name),
        experiment=run.info.experiment_id,
        sweep=sweep.info.run_id,
        sweep_name=str(sweep.info.run_name),
        step=rows[0].checkpoint_step,
        checkpoint=rows[0].checkpoint,
        rows=rows,
        settings=settings,
        tags=tags,
        sweep_tags=sweep.data.tags,
        began_s=run.info.start_time / 1000,
        varied=_read_varied(client, run) if VARIED_TAG in tags else (),
    )


def _read_varied(client: MlflowClient, run: Run) -> tuple[Varied, ...]:
    """The varied arms of an evaluation; each axis counts once, by the newest of its runs that have finished."""
    query = f"tags.{PARENT_RUN_TAG} = '{run.info.run_id}' and status = 'FINISHED'"
    found: dict[str, Varied] = {}
    for arm in client.search_runs([run.info.experiment_id], query, order_by=["attributes.start_time ASC"]):
        axis, strength = arm.data.tags.get(VARY_AXIS_TAG), arm.data.tags.get(VARY_STRENGTH_TAG)
        if axis and strength:
            with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
                found[axis] = Varied(axis, float(strength), _rows(client, arm.info.run_id, scratch))
    return tuple(found.values())


def _rows(client: MlflowClient, run_id: str, scratch: str) -> tuple[EpisodeRow, ...]:
    """The episodes of a run, in the order of tasks and seeds."""
    table = read_json(client.download_artifacts(run_id, EPISODES_FILE, scratch), MAX_BYTES)
    rows = [episode_row(dict(zip(table["columns"], values, strict=True))) for values in table["data"]]
    if not rows:
        raise ValueError("the table has no rows")
    return tuple(sorted(rows, key=lambda row: (row.task, row.seed)))
