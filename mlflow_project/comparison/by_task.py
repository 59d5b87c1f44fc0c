"""Checkpoints of several tasks, compared inside each task.

The pooled comparison (`compare`) pairs all episodes by seed and task. Its exact McNemar test is one of "neither is
better in any task"; for equal macro averages it errs on the safe side, because pairs with different odds scatter less
than pairs with the same odds (W. Hoeffding, On the distribution of the number of successes in independent trials, Ann.
Math. Statist. 27 (1956)). Here each task is tested for itself, and the p-values of all pairs in all tasks are corrected
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlflow_project.comparison.episodes import success_of
from mlflow_project.comparison.standings import Pair, Standing
from rlinf_isaac.stats.paired import PairedCounts, holm
from rlinf_isaac.stats.rates import RateEstimate
from rlinf_isaac.stats.sequential import ALPHA, anytime_p_value


@dataclass(frozen=True)
class TaskPair:
    """Two checkpoints in one task.

    Attributes:
        task: name of the task.
        first, second: their indices in `Comparison.standings`.
        counts: outcomes on the seeds of this task that both have.
        p_value: two-sided p-value of this pair in this task alone.
        adjusted: p-value adjusted by Holm over all pairs in all tasks.
        better: index of the better checkpoint if `adjusted` <= alpha, else None.
    """

    task: str
    first: int
    second: int
    counts: PairedCounts
    p_value: float
    adjusted: float
    better: int | None


def tasks_in(standings: Sequence[Standing]) -> tuple[str, ...]:
    """The tasks of the checkpoints, in their order; empty if each is of a single task."""
    return tuple(dict.fromkeys(task for standing in standings for task in standing.evaluation.tasks))


def rates(standing: Standing) -> dict[str, RateEstimate]:
    """Task -> success rate of a checkpoint with its 95 % Wilson interval."""
    evaluation = standing.evaluation
    return {task: success_of(evaluation.of_task(task)) for task in evaluation.tasks}


def pairs_by_task(standings: Sequence[Standing], pairs: Sequence[Pair], alpha: float = ALPHA) -> tuple[TaskPair, ...]:
    """The paired test of every pair of checkpoints in every task, corrected by Holm over all of them. Pairs whose
    episodes are not paired are left out."""
    tested = []
    for task in tasks_in(standings):
        outcomes = [{row.seed: row.success for row in each.evaluation.of_task(task)} for each in standings]
        for pair in pairs:
            first, second = outcomes[pair.first], outcomes[pair.second]
            if pair.counts is None or not first.keys() & second.keys():
                continue
            counts = PairedCounts.of(first, second)
            stopped = any(standings[each].evaluation.stopped_by_rule for each in (pair.first, pair.second))
            p_value = anytime_p_value(first, second) if stopped else counts.p_value()
            tested.append((task, pair, counts, p_value))
    found = []
    for (task, pair, counts, p_value), adjusted in zip(tested, holm([each[-1] for each in tested]), strict=True):
        ahead = counts.wins - counts.losses
        better = None if adjusted > alpha or not ahead else pair.first if ahead > 0 else pair.second
        found.append(TaskPair(task, pair.first, pair.second, counts, p_value, adjusted, better))
    return tuple(found)
