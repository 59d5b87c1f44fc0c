"""The rates of a candidate in each task of a suite, for the gate's rule ``every-task``."""

from __future__ import annotations

from collections.abc import Mapping

from rlinf_isaac.ground.events import EpisodeKey
from rlinf_isaac.stats.paired import PairedCounts
from rlinf_isaac.stats.rates import clopper_pearson_interval, difference_bound

ONE_TASK = "the task"
"""What `by_task` calls the task of a checkpoint of a single one."""


def by_task(successes: Mapping[EpisodeKey, bool]) -> dict[str, dict[int, bool]]:
    """Task -> seed -> success; of a single task, whose name the keys lack, under `ONE_TASK`."""
    found: dict[str, dict[int, bool]] = {}
    for key, success in successes.items():
        seed, task = (key, ONE_TASK) if isinstance(key, int) else key
        found.setdefault(task, {})[seed] = success
    return found


def failing_tasks(
    tasks: Mapping[str, Mapping[int, bool]],
    champion: Mapping[str, Mapping[int, bool]],
    min_success: float,
    margin: float,
    alpha: float,
) -> tuple[list[str], float]:
    """A text for each task in which the candidate does not reach what is required, and its lowest lower bound.

    Args:
        tasks: task -> seed -> success of the candidate.
        champion: the same of the champion on the same seeds; empty if there is none.
        min_success: rate that the one-sided Clopper-Pearson lower bound must reach.
        margin: the exact lower bound of the difference to the champion must be above minus this.
        alpha: level of each of the two tests.
    """
    failing, lowest = [], 1.0
    for task, own in tasks.items():
        low = clopper_pearson_interval(sum(own.values()), len(own), 1 - 2 * alpha)[0]
        lowest = min(lowest, low)
        if low < min_success:
            failing.append(f"{task}: {sum(own.values())}/{len(own)}, lower bound {percent(low)}")
        if task in champion:
            counts = PairedCounts.of(own, champion[task])
            if (bound := difference_bound(counts, alpha)) <= -margin:
                lost = f"{counts.wins} won, {counts.losses} lost against the champion"
                failing.append(f"{task}: {lost}, lower bound of the difference {percent(bound)}")
    return failing, lowest


def percent(rate: float) -> str:
    """The rate with four digits."""
    return f"{100 * rate:.4g} %"
