"""Which evaluations a candidate could have been picked from: the K of `promotion.gate`, which says why it matters.

A look is one checkpoint with one set of episode rows. The same checkpoint with the same rows is the same look, however
often and in whatever run it was played again: rows of the same seeds and settings repeat themselves. Other seeds, and
other rows on the same seeds (another renderer, another chunk, a simulator that rounds differently), are other looks.

Counted are all looks at the candidate's task that the store has, in any experiment, since the champion took its place;
how the candidate is named plays no part. The champion's own are none: it is not a candidate. Runs that were deleted in
MLflow count until they are purged, and so do evaluations that cannot be promoted (``--until-decided``,
``--allow-mismatch``): whoever saw them may have picked by them.

A candidate that was evaluated before the champion took its place was picked from what was there then, and so was one
that was trained from such a checkpoint and evaluated on any of the same seeds, where it inherits luck. The count then
begins where that reign began. Luck of the champion is no such luck: what the candidate inherits of it, it has to beat.

The looks of one sweep share what may be spent on it, since their number was fixed before the first of them. It is
counted in full from the first on; where other evaluations end in between, what is left of the sweep begins anew.

Not seen: other stores, runs that were purged or that `sync` has not brought yet, evaluations that were stopped before
their end, and seeds that were chosen because the champion fails on them. Times are those of the machines that
evaluated and of the registry; the order of what happened within the difference of their clocks is unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from mlflow_project.vocabulary import (
    EPISODES,
    LENGTH_MEAN,
    MODEL_TAG,
    PARENT_RUN_TAG,
    PLANNED_TAG,
    RETURN_MEAN,
    SUCCESS,
    lineage_tag,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from mlflow_project.comparison.evaluations import Evaluation

TASK, FIRST_SEED = "cfg/env/task", "cfg/eval/first_seed"
ROWS = (EPISODES, SUCCESS, LENGTH_MEAN, RETURN_MEAN)
"""Metrics that tell two sets of rows of one checkpoint apart, without a download of each."""
NAMED = 3
"""Sweeps that a finding names."""


@dataclass(frozen=True)
class Look:
    """One finished evaluation of one checkpoint.

    Attributes:
        checkpoint: sha256 of the bundle.
        seeds: that were played.
        rows: equal where the episode rows are.
        time_ms: when it ended, and the rows were there to be seen.
        run: its MLflow id.
        sweep: id of the run it is nested in, or its own.
        planned: of how many looks the sweep is, as was fixed before it began; None where that was not recorded.
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
    """When a version became champion (ms), and its number."""

    since_ms: int
    version: str


@dataclass(frozen=True)
class Family:
    """The looks that a candidate could have been picked from, each once, the first of its kind; oldest first.

    Attributes:
        to_come: how many more its newest sweep was planned to have.
        newest_sweep: how many of all are that sweep's: as planned, where nothing else came in between; 1 where the plan
            was not recorded.
        since: the reign that the count begins with; None: it begins with the store.
        parts: what they consist of, for people: ``3 of sweep eval tiny (<run>)``.
    """

    looks: tuple[Look, ...]
    to_come: int
    newest_sweep: int
    since: Reign | None
    parts: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of looks, with those to come."""
        return len(self.looks) + self.to_come


def family_of(
    checkpoint: str,
    looks: Iterable[Look],
    *,
    champion: str | None = None,
    reigns: Sequence[Reign] = (),
    ancestors: Iterable[str] = (),
) -> Family:
    """Count what a candidate could have been picked from; nothing here depends on the name that it was given.

    Args:
        checkpoint: sha256 of its bundle.
        looks: all of the store at its task, its own among them.
        champion: sha256 of the champion's bundle.
        reigns: of the champion, and of those that it followed; in any order.
        ancestors: sha256 of the bundles that it was trained from, the nearest first.
    """
    looks = sorted(looks, key=lambda each: (each.time_ms, each.sweep, each.run))
    first: dict[tuple[str, range, tuple[float, ...]], Look] = {}
    for look in looks:
        if look.checkpoint != champion:
            first.setdefault((look.checkpoint, look.seeds, look.rows), look)
    own = [each for each in first.values() if each.checkpoint == checkpoint]
    older = set(_below(champion, ancestors))
    inherited = [each for each in first.values() if each.checkpoint in older and any(_overlap(each, o) for o in own)]
    seen = min((each.time_ms for each in (*own, *inherited)), default=0)
    before = [reign for reign in reigns if reign.since_ms <= seen]
    since = max(before, key=lambda reign: reign.since_ms, default=None)
    counted = tuple(each for each in first.values() if since is None or each.time_ms >= since.since_ms)
    return Family(counted, *_newest_sweep(counted, looks), since)


def find_family(client: MlflowClient, candidate: Evaluation, champion: str | None, reigns: Sequence[Reign]) -> Family:
    """`family_of` a candidate in this store, with its parts."""
    family = family_of(
        candidate.checkpoint,
        _looks(client, candidate),
        champion=champion,
        reigns=reigns,
        ancestors=_ancestors(client, candidate),
    )
    return replace(family, parts=tuple(_parts(client, family)))


def _newest_sweep(counted: Sequence[Look], looks: Sequence[Look]) -> tuple[int, int]:
    """How many looks the newest sweep has still to make, and how many it makes without interruption by others.

    Of the plan, those are left out that were made before an interruption, and that turned out to be no further looks.
    """
    if not counted or counted[-1].planned is None:
        return 0, 1
    sweep = counted[-1].sweep
    made = {each.run for each in takewhile(lambda each: each.sweep == sweep, reversed(counted))}
    others = sum(each.sweep == sweep and each.run not in made for each in looks)
    planned = max(len(made), counted[-1].planned - others)
    return planned - len(made), planned


def _below(champion: str | None, ancestors: Iterable[str]) -> Iterator[str]:
    """The ancestors that are nearer than the champion."""
    for each in ancestors:
        if each == champion:
            return
        yield each


def _overlap(first: Look, second: Look) -> bool:
    return max(first.seeds.start, second.seeds.start) < min(first.seeds.stop, second.seeds.stop)


def _looks(client: MlflowClient, candidate: Evaluation) -> Iterator[Look]:
    """All looks of the store at the candidate's task, in any experiment, deleted ones as well."""
    from mlflow.entities import ViewType

    task = client.get_run(candidate.run).data.params.get(TASK)
    query = f"metrics.`{EPISODES}` > 0" + (f" and params.`{TASK}` = '{task}'" if task else "")
    experiments = [each.experiment_id for each in client.search_experiments(view_type=ViewType.ALL)]
    token = None
    while page := client.search_runs(experiments, query, ViewType.ALL, page_token=token):
        yield from map(_look, page)
        if not (token := page.token):
            return


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
    """What a candidate was trained from, the nearest first, as far as the store knows."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    seen: Collection[str] = {candidate.checkpoint}
    parent = candidate.parent
    while parent is not None and parent not in seen:
        yield parent
        seen = {*seen, parent}
        models = client.search_logged_models(experiments, f"tags.`{MODEL_TAG}` = '{parent}'")
        parent = models[0].tags.get(lineage_tag("parent")) if models else None


def _parts(client: MlflowClient, family: Family) -> Iterator[str]:
    """How many looks came of which sweep, the largest first."""
    from mlflow.exceptions import MlflowException

    counts = Counter(look.sweep for look in family.looks).most_common()
    for sweep, number in counts[:NAMED]:
        try:
            name = f"{client.get_run(sweep).info.run_name} ({sweep[:8]})"
        except MlflowException:  # purged, but not all of what was nested in it
            name = sweep[:8]
        yield f"{number} of sweep {name}"
    if others := counts[NAMED:]:
        yield f"{sum(number for _, number in others)} of {len(others)} other sweeps"
    if family.to_come:
        yield f"{family.to_come} that the newest sweep has not finished"
