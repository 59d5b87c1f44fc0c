"""The difference of two checkpoints' success rates with its 95 % interval, for tables and the page."""

from __future__ import annotations

from mlflow_project.comparison.compare import ANYTIME, Comparison
from mlflow_project.comparison.episodes import solved
from mlflow_project.comparison.standings import Pair
from rlinf_isaac.stats.differences import Difference, independent_difference, paired_difference

NOTE = "Intervals of differences are Newcombe's, 95 % for each pair alone; the corrected p-values decide."


def difference_of(comparison: Comparison, pair: Pair) -> Difference | None:
    """(rate of the first) - (rate of the second), over the seeds that both have where they are paired, of all tasks
    together; None where the outcomes decided the number of episodes, for which these intervals do not hold."""
    if pair.test == ANYTIME:
        return None
    if pair.counts is not None:
        return paired_difference(pair.counts) if pair.counts.n else None
    first, second = (solved(comparison.standings[each].evaluation.rows) for each in (pair.first, pair.second))
    return independent_difference(first, second)


def points(value: float) -> str:
    """A difference in points of a hundred: ``+9.4``."""
    return f"{100 * value:+.1f}"


def words(difference: Difference) -> str:
    """``+9.4 points (95 % interval -1.4 to +20.5)``."""
    low, high = points(difference.low), points(difference.high)
    return f"{points(difference.value)} points (95 % interval {low} to {high})"
