"""Counts the evaluations that a candidate could have been picked from: K and M of `promotion.gate`.

A look is one checkpoint with one set of episode rows. Evaluating the same checkpoint again with the same seeds and
settings gives the same rows, so it is the same look, in whatever run. Other seeds, or other rows on the same seeds
(because of another renderer, another chunk, or a simulator that rounds differently), are another look.

K counts all looks in the store at the candidate's task since the champion was promoted, in any experiment and
independent of the candidate's name. Looks at the champion itself do not count, because it is not a candidate. Runs that
were deleted in MLflow count until they are purged, and so do evaluations that cannot be promoted (``--until-decided``,
``--allow-mismatch``), because the user may have selected by them.

A candidate that was evaluated before the champion was promoted was picked from the looks of that earlier time. The same
holds for a candidate that was trained from such a checkpoint and evaluated on some of the same seeds, because it
inherits luck on them. In both cases the count begins with the reign in which that evaluation took place. Luck inherited
from the champion itself does not matter, because the candidate has to beat the champion with it.

The looks of one sweep share its part of the error rate, because their number was fixed before the first of them; all of
them count from the first one on. If another evaluation ends in between, the rest of the sweep counts as a new sweep.

Not counted, because the store does not show them: other stores, runs that were purged or not yet uploaded by `sync`,
evaluations that were stopped before their end, and a choice of seeds on which the champion fails. Times come from the
clocks of the evaluating machines and of the registry; events closer together than the difference of these clocks may
be in the wrong order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from mlflow_project.lineage.models_of import models_of
from mlflow_project.vocabulary import (
    EPISODES,
    LENGTH_MEAN,
    MODEL_TAG,
    PARENT_RUN_TAG,
    PLANNED_TAG,
    RETURN_MEAN,
    SUCCESS,
    TASK_METRIC,
    TASK_RATE,
    lineage_tag,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from mlflow_project.comparison.evaluations import Evaluation

TASK, FIRST_SEED = "cfg/env/task", "cfg/eval/first_seed"
ROWS = (EPISODES, SUCCESS, LENGTH_MEAN, RETURN_MEAN)
"""Metrics that distinguish two sets of rows of one checkpoint without downloading the rows."""
NAMED = 3
"""Most sweeps that a finding names."""


@dataclass(frozen=True)
class Look:
    """One finished evaluation of one checkpoint.

    Attributes:
        checkpoint: sha256 of the bundle.
        seeds: seeds of the episodes.
        rows: values of the metrics `ROWS`; equal for equal episode rows.
        time_ms: when the evaluation ended, so that its rows could be seen.
        run: MLflow's id of the run.
        sweep: id of the parent run; the run's own id if it has no parent.
        planned: number of looks in the sweep, fixed before it began; None if it was not recorded.
    """

    checkpoint: str
    seeds: range
    rows: tuple[float, ...]
    time_ms: int
    run: str
    sweep: str
    planned: int | None = None


@dataclass(frozen=True)
class Reign:
    """The time at which a version became champion (ms), and its number."""

    since_ms: int
    version: str


@dataclass(frozen=True)
class Family:
    """The looks that a candidate could have been picked from.

    Attributes:
        looks: the different looks, oldest first; of several equal ones the first.
        to_come: number of looks that the newest sweep has planned and not finished.
        newest_sweep: M, the number of looks that the newest sweep makes according to its plan. If another evaluation
            has ended in between, only the looks after it. 1 if the plan was not recorded.
        since: the reign with which the count begins; None if it begins with the store.
        parts: description of the looks, for people: ``3 of sweep eval tiny (<run>)``.
    """

    looks: tuple[Look, ...]
    to_come: int
    newest_sweep: int
    since: Reign | None
    parts: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """K, the number of looks including those to come."""
        return len(self.looks) + self.to_come


def family_of(
    checkpoint: str,
    looks: Iterable[Look],
    *,
    champion: str | None = None,
    reigns: Sequence[Reign] = (),
    ancestors: Iterable[str] = (),
) -> Family:
    """Count the looks that a candidate could have been picked from.

    Args:
        checkpoint: sha256 of the candidate's bundle.
        looks: all looks in the store at the candidate's task, including its own.
        champion: sha256 of the champion's bundle.
        reigns: reigns of the champion and of its predecessors, in any order.
        ancestors: sha256 of the bundles that the candidate was trained from, the nearest first.
    """
    looks = sorted(looks, key=lambda look: (look.time_ms, look.sweep, look.run))
    first: dict[tuple[str, range, tuple[float, ...]], Look] = {}
    for look in looks:
        if look.checkpoint != champion:
            first.setdefault((look.checkpoint, look.seeds, look.rows), look)
    own = [look for look in first.values() if look.checkpoint == checkpoint]
    older = set(_below(champion, ancestors))
    inherited = [look for look in first.values() if look.checkpoint in older and any(_overlap(look, o) for o in own)]
    # The count begins with the reign in which the candidate, or an ancestor on the same seeds, was first evaluated.
    first_ms = min((look.time_ms for look in (*own, *inherited)), default=0)
    before = [reign for reign in reigns if reign.since_ms <= first_ms]
    since = max(before, key=lambda reign: reign.since_ms, default=None)
    counted = tuple(look for look in first.values() if since is None or look.time_ms >= since.since_ms)
    return Family(counted, *_newest_sweep(counted, looks), since)


def find_family(client: MlflowClient, candidate: Evaluation, champion: str | None, reigns: Sequence[Reign]) -> Family:
    """Apply `family_of` to a candidate and all looks of the store, and add the description of the parts."""
    family = family_of(
        candidate.checkpoint,
        _looks(client, candidate),
        champion=champion,
        reigns=reigns,
        ancestors=_ancestors(client, candidate),
    )
    return replace(family, parts=tuple(_parts(client, family)))


def _newest_sweep(counted: Sequence[Look], looks: Sequence[Look]) -> tuple[int, int]:
    """Number of looks of the newest sweep that are still to come, and number of its looks since an interruption.

    Planned looks do not count if they were made before an interruption by another evaluation, or if they repeated an
    earlier look.
    """
    if not counted or counted[-1].planned is None:
        return 0, 1
    sweep = counted[-1].sweep
    made = {look.run for look in takewhile(lambda look: look.sweep == sweep, reversed(counted))}
    others = sum(look.sweep == sweep and look.run not in made for look in looks)
    planned = max(len(made), counted[-1].planned - others)
    return planned - len(made), planned


def _below(champion: str | None, ancestors: Iterable[str]) -> Iterator[str]:
    """The ancestors up to the champion, without it."""
    for ancestor in ancestors:
        if ancestor == champion:
            return
        yield ancestor


def _overlap(first: Look, second: Look) -> bool:
    return max(first.seeds.start, second.seeds.start) < min(first.seeds.stop, second.seeds.stop)


def _looks(client: MlflowClient, candidate: Evaluation) -> Iterator[Look]:
    """All looks in the store at the candidate's task, in any experiment, including deleted runs. At several tasks these
    are the looks at any of them."""
    from mlflow.entities import ViewType

    task = client.get_run(candidate.run).data.params.get(TASK)
    own = {task, *candidate.tasks} if candidate.tasks else None
    query = f"metrics.`{EPISODES}` > 0" + (f" and params.`{TASK}` = '{task}'" if task and own is None else "")
    experiments = [experiment.experiment_id for experiment in client.search_experiments(view_type=ViewType.ALL)]
    token = None
    while page := client.search_runs(experiments, query, ViewType.ALL, page_token=token):
        yield from (_look(run) for run in page if own is None or _is_about(run, own))
        if not (token := page.token):
            return


def _is_about(run: Run, tasks: Collection[str | None]) -> bool:
    """Whether an evaluation was of one of these tasks, whatever a suite of them is called."""
    played = run.data.params.get(TASK, "")
    rates = (key for key in run.data.metrics if key.startswith(TASK_METRIC) and key.endswith(TASK_RATE))
    of_suite = (key[len(TASK_METRIC) : -len(TASK_RATE)] for key in rates)
    return any(name in tasks for name in (played, *played.split(","), *of_suite))


def _look(run: Run) -> Look:
    tags, metrics, first = run.data.tags, run.data.metrics, int(run.data.params.get(FIRST_SEED, 0))
    return Look(
        checkpoint=tags.get(MODEL_TAG, ""),
        seeds=range(first, first + int(metrics[EPISODES])),
        rows=tuple(metrics.get(name, 0.0) for name in ROWS),
        time_ms=int(run.info.end_time or run.info.start_time),
        run=run.info.run_id,
        sweep=tags.get(PARENT_RUN_TAG, run.info.run_id),
        planned=int(tags[PLANNED_TAG]) if PLANNED_TAG in tags else None,
    )


def _ancestors(client: MlflowClient, candidate: Evaluation) -> Iterator[str]:
    """The checkpoints that a candidate was trained from, the nearest first, as far as the store knows them."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    visited: Collection[str] = {candidate.checkpoint}
    parent = candidate.parent
    while parent is not None and parent not in visited:
        yield parent
        visited = {*visited, parent}
        models = models_of(client, parent, experiments)
        parent = models[0].tags.get(lineage_tag("parent")) if models else None


def _parts(client: MlflowClient, family: Family) -> Iterator[str]:
    """Descriptions of how many looks belong to which sweep, the largest number first."""
    from mlflow.exceptions import MlflowException

    counts = Counter(look.sweep for look in family.looks).most_common()
    for sweep, number in counts[:NAMED]:
        try:
            name = f"{client.get_run(sweep).info.run_name} ({sweep[:8]})"
        except MlflowException:  # the sweep was purged, but not all runs nested in it
            name = sweep[:8]
        yield f"{number} of sweep {name}"
    if others := counts[NAMED:]:
        yield f"{sum(number for _, number in others)} of {len(others)} other sweeps"
    if family.to_come:
        yield f"{family.to_come} that the newest sweep has not finished"
