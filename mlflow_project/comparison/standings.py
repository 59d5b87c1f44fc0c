"""A checkpoint in a comparison, and a pair of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_project.comparison.evaluations import Evaluation
from rlinf_isaac.stats.paired import PairedCounts
from rlinf_isaac.stats.rates import RateEstimate


@dataclass(frozen=True)
class Standing:
    """One checkpoint in the comparison.

    Attributes:
        label: short name, unique in the comparison.
        success: rate with its 95 % Wilson interval.
        outcomes: how the episodes ended that were not solved (a failure's name, or ``timeout``) -> their number.
        episode_return, length: means over the episodes; the length in control steps.
        extras: name -> mean of a number that the environment gives for each episode.
        rank: best and worst place that the tests leave possible, counted from 1.
    """

    evaluation: Evaluation
    label: str
    success: RateEstimate
    outcomes: Mapping[str, int]
    episode_return: float
    length: float
    extras: Mapping[str, float]
    rank: tuple[int, int]

    @property
    def place(self) -> str:
        """The rank as text: ``1``, or ``1-3`` if several places are possible."""
        low, high = self.rank
        return str(low) if low == high else f"{low}-{high}"


@dataclass(frozen=True)
class Pair:
    """Two checkpoints of a comparison.

    Attributes:
        first, second: their indices in `Comparison.standings`.
        counts: outcomes on the seeds that both have; None if their episodes are not paired.
        unpaired: why the episodes are not paired, or None.
        test: name of the two-sided test (`compare.MCNEMAR`, `ANYTIME`, `BOSCHLOO` or `FISHER`).
        p_value: p-value of this pair alone.
        adjusted: p-value adjusted by Holm over all pairs.
        better: index of the better checkpoint if `adjusted` <= alpha, else None.
    """

    first: int
    second: int
    counts: PairedCounts | None
    unpaired: str | None
    test: str
    p_value: float
    adjusted: float
    better: int | None
