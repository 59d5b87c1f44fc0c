"""Evaluations as the MLflow store has them: one checkpoint, its episode rows, and the settings these depend on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mlflow_project.vocabulary import (
    EPISODES,
    EPISODES_FILE,
    MISMATCH_OF_TAG,
    MISMATCH_TAG,
    PARENT_RUN_TAG,
    RUN_ID,
    SETTINGS_FILE,
    lineage_tag,
)
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.ground.events import EpisodeRow
from rlinf_isaac.ground.reading import read_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MAX_BYTES = 100_000_000
"""More than the rows of any evaluation take."""

_FLAG = "subtask/"
_COLUMNS = {field.name for field in fields(EpisodeRow)} - {"subtasks"}


@dataclass(frozen=True)
class Evaluation:
    """One evaluated checkpoint.

    Attributes:
        run: MLflow's run id, or ``{{run:<local uuid>}}`` while it is being recorded (`operations`).
        name: of the run.
        experiment: MLflow's id, or ``{{experiment}}`` likewise.
        sweep: run id of the sweep it belongs to; those of one sweep differ in nothing but the checkpoint.
        sweep_name: of that run.
        step: optimiser step of the checkpoint.
        checkpoint: sha256 of the bundle.
        rows: episodes by seed; `EpisodeRow.video` is an artifact path of the run.
        settings: `EvaluationStarted.settings`; empty where they were not recorded.
        tags: of the run (digests as ``lineage.<link>.sha256``, `MISMATCH_TAG`).
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

    @property
    def successes(self) -> dict[int, bool]:
        """Seed -> success, in the order of seeds."""
        return {row.seed: row.success for row in self.rows}

    @property
    def parent(self) -> str | None:
        """sha256 of the checkpoint that this one was trained from, or None."""
        return self.tags.get(lineage_tag("parent"))

    @property
    def stopped_by_rule(self) -> bool:
        """Whether the number of episodes depended on their outcomes."""
        return self.settings.get("stop_rule") is not None


def mismatch_tags(allowed: Iterable[Problem]) -> dict[str, str]:
    """Tags of a run that goes on in spite of these problems; none without any."""
    tags = {f"{MISMATCH_OF_TAG}{problem.code}": problem.cause for problem in allowed}
    return {MISMATCH_TAG: "true"} | tags if tags else {}


def table_row(row: EpisodeRow) -> dict[str, Any]:
    """A row of `EPISODES_FILE`; `episode_row` is its inverse."""
    values = row.as_dict()
    subtasks = values.pop("subtasks")
    return values | {f"{_FLAG}{flag}": reached for flag, reached in sorted(subtasks.items())}


def episode_row(values: Mapping[str, Any]) -> EpisodeRow:
    """The row that `table_row` made these values of. Columns that are neither a field nor a flag are left out."""
    flags = {key.removeprefix(_FLAG): bool(value) for key, value in values.items() if key.startswith(_FLAG)}
    return EpisodeRow(**{key: value for key, value in values.items() if key in _COLUMNS}, subtasks=flags)


def run_id_in(text: str) -> str:
    """The run that a person means: its id, or any link of the MLflow UI that holds one (its last one).

    Raises:
        InvalidJob: there is none.
    """
    found = RUN_ID.findall(text)
    if not found:
        raise InvalidJob.of("unknown-run", f"{text!r} holds no run id (32 hex digits)", "pass a run's id or its link")
    return found[-1]


def read_evaluations(client: MlflowClient, runs: Sequence[str]) -> list[Evaluation]:
    """All finished evaluations among these runs and those nested in them, at any depth; each once, oldest first.

    Args:
        client: of the store.
        runs: run ids; a sweep, the run of `main`, one evaluation, ...

    Raises:
        InvalidJob: with all problems: a run that is not in the store, or has no finished evaluation; a table that
            cannot be read.
    """
    from mlflow.exceptions import MlflowException

    problems, found = [], {}
    for run_id in runs:
        try:
            top = client.get_run(run_id)
        except MlflowException as error:
            cause = f"the MLflow store has no {run_id} ({str(error).partition(chr(10))[0]})"
            problems.append(Problem("not-in-store", cause, "check MLFLOW_TRACKING_URI, and the id"))
            continue
        below = list(_evaluations_below(client, top))
        if not below:
            cause = f"run {run_id} ({top.info.run_name}) has no finished evaluation, nor has any run nested in it"
            problems.append(Problem("no-evaluations", cause, "name a run of eval, rl or main that evaluated"))
        for run in below:
            if run.info.run_id not in found:
                try:
                    found[run.info.run_id] = _read(client, run)
                except (ValueError, TypeError, KeyError, MlflowException, OSError) as error:
                    cause = f"{EPISODES_FILE} of run {run.info.run_id} cannot be read: {error!r}"
                    problems.append(Problem("bad-episodes", cause, "evaluate again"))
    if problems:
        raise InvalidJob(problems)
    return list(found.values())


def evaluations_of(client: MlflowClient, checkpoint: str) -> list[Evaluation]:
    """All finished evaluations of the checkpoint with this sha256, in any experiment, newest first. What cannot be read
    is left out."""
    from mlflow.exceptions import MlflowException

    experiments = [each.experiment_id for each in client.search_experiments()]
    query = f"tags.`checkpoint.sha256` = '{checkpoint}' and metrics.`eval/episodes` > 0 and status = 'FINISHED'"
    found = []
    for run in client.search_runs(experiments, query, max_results=1000, order_by=["attributes.start_time DESC"]):
        with suppress(ValueError, TypeError, KeyError, MlflowException, OSError):
            found.append(_read(client, run))
    return [each for each in found if each.checkpoint == checkpoint]


def _evaluations_below(client: MlflowClient, run: Run) -> list[Run]:
    """`run` and what is nested in it, as far as it is a finished evaluation."""
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
    return [each for child in children for each in _evaluations_below(client, child)]


def _read(client: MlflowClient, run: Run) -> Evaluation:
    run_id, tags = run.info.run_id, run.data.tags
    with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
        table = read_json(client.download_artifacts(run_id, EPISODES_FILE, scratch), MAX_BYTES)
        settings = {}
        if any(entry.path == SETTINGS_FILE for entry in client.list_artifacts(run_id)):
            settings = read_json(client.download_artifacts(run_id, SETTINGS_FILE, scratch), MAX_BYTES)
    rows = [episode_row(dict(zip(table["columns"], values, strict=True))) for values in table["data"]]
    if not rows:
        raise ValueError("it has no rows")
    sweep = client.get_run(tags.get(PARENT_RUN_TAG, run_id))
    return Evaluation(
        run=run_id,
        name=str(run.info.run_name),
        experiment=run.info.experiment_id,
        sweep=sweep.info.run_id,
        sweep_name=str(sweep.info.run_name),
        step=rows[0].checkpoint_step,
        checkpoint=rows[0].checkpoint,
        rows=tuple(sorted(rows, key=lambda row: row.seed)),
        settings=settings,
        tags=tags,
    )
