"""Compares two checkpoints on the same seeds, and tests whether their difference may be due to chance.

Seeds that both or neither of them solves do not show which is better; McNemar's exact test uses the other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Alternative = Literal["two-sided", "greater"]


@dataclass(frozen=True)
class PairedCounts:
    """How often each of the four outcomes of a seed occurred.

    Attributes:
        both: seeds that both solved.
        wins: seeds that only the first one solved.
        losses: seeds that only the second one solved.
        neither: seeds that neither solved.
    """

    both: int
    wins: int
    losses: int
    neither: int

    @classmethod
    def of(cls, first: Mapping[Any, bool], second: Mapping[Any, bool]) -> PairedCounts:
        """Counts the outcomes over the common seeds of two mappings seed -> success."""
        counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
        for seed in first.keys() & second.keys():
            counts[bool(first[seed]), bool(second[seed])] += 1
        return cls(*counts.values())

    @property
    def n(self) -> int:
        """Number of seeds."""
        return self.both + self.wins + self.losses + self.neither

    @property
    def phi(self) -> float | None:
        """Pearson correlation of the two outcomes over the seeds, in [-1, 1]; None if one of them is constant.

        The larger it is, the more precise is the paired comparison than one of two independent rates.
        """
        a, b, c, d = self.both, self.wins, self.losses, self.neither
        margins = (a + b) * (c + d) * (a + c) * (b + d)
        return (a * d - b * c) / math.sqrt(margins) if margins else None

    def p_value(self, alternative: Alternative = "two-sided") -> float:
        return mcnemar(self.wins, self.losses, alternative)


def mcnemar(wins: int, losses: int, alternative: Alternative = "two-sided") -> float:
    """p-value of the exact form of McNemar's test: a sign test on the seeds that differ.

    Args:
        wins: seeds that only the first one solved.
        losses: seeds that only the second one solved.
        alternative: ``greater``: the first one is better; ``two-sided``: one of the two is better.

    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12
    (1947); under the null hypothesis the wins are binomial (wins + losses, 1/2).

    Raises:
        ValueError: a count is negative.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"{wins} wins and {losses} losses")
    if alternative == "greater":
        return _upper_tail(wins, wins + losses)
    return min(1.0, 2 * _upper_tail(max(wins, losses), wins + losses))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple testing, in the same order. All that are <= alpha are significant jointly.

    The probability that a true null hypothesis is among them is at most alpha, for any dependence between the tests.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979).
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _upper_tail(k: int, n: int) -> float:
    """P(X >= k) for X ~ binomial(n, 1/2), computed with exact integers up to the division.

    scipy.stats is not used, because it takes 0.7 s to import and every sweep needs this function.
    """
    return sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n
