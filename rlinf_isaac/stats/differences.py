"""Intervals for the difference of two success rates, of independent and of paired episodes.

Both are R. G. Newcombe's "method 10" (square and add), which builds on the Wilson intervals of the two rates. They need
no iteration, stay within [-1, 1], and cover close to what they name for few episodes and rates near 1, where the
textbook interval ``d +- 1.96 s`` does not. `benchmarks/verdicts.py` simulates their coverage.

The tests of a comparison are exact and these intervals are not, so near the border one may exclude 0 where the other
finds a tie; the test decides.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from rlinf_isaac.stats.paired import PairedCounts
from rlinf_isaac.stats.rates import wilson_interval


class Difference(NamedTuple):
    """A difference of two success rates with its two-sided interval; all in [-1, 1]."""

    value: float
    low: float
    high: float


def independent_difference(first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95) -> Difference:
    """(rate of the first) - (rate of the second), of independent episodes; the arguments are as of
    `independent_interval`."""
    low, high = independent_interval(first, second, confidence)
    return Difference(first[0] / first[1] - second[0] / second[1], low, high)


def paired_difference(counts: PairedCounts, confidence: float = 0.95) -> Difference:
    """(rate of the first) - (rate of the second), of episodes that are paired by seed, with `paired_interval`."""
    low, high = paired_interval(counts, confidence)
    return Difference((counts.wins - counts.losses) / counts.n, low, high)


def independent_interval(
    first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95
) -> tuple[float, float]:
    """Two-sided interval of (rate of the first) - (rate of the second), of independent episodes.

    Args:
        first, second: (successes, episodes).

    Source: R. G. Newcombe, Interval estimation for the difference between independent proportions: comparison of eleven
    methods, Statist. Med. 17 (1998), method 10.

    Raises:
        ValueError: as `wilson_interval`.
    """
    (p, low_1, high_1), (q, low_2, high_2) = (
        (successes / n if n else math.nan, *wilson_interval(successes, n, confidence))
        for successes, n in (first, second)
    )
    below = math.hypot(p - low_1, high_2 - q)
    above = math.hypot(high_1 - p, q - low_2)
    return max(-1.0, p - q - below), min(1.0, p - q + above)


def paired_interval(counts: PairedCounts, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided interval of (rate of the first) - (rate of the second), of episodes that are paired by seed.

    The measured correlation of the outcomes makes it narrower; it is taken towards 0 by half an episode where it is
    positive, and is 0 where one of the two solved all or none.

    Source: R. G. Newcombe, Improved confidence intervals for the difference between binomial proportions based on
    paired data, Statist. Med. 17 (1998), method 10.

    Raises:
        ValueError: there is no pair, or `confidence` is not in (0, 1).
    """
    n = counts.n
    p, q = ((counts.both + own) / n if n else math.nan for own in (counts.wins, counts.losses))
    low_1, high_1 = wilson_interval(counts.both + counts.wins, n, confidence)
    low_2, high_2 = wilson_interval(counts.both + counts.losses, n, confidence)
    phi = _corrected_phi(counts)

    def side(own: float, other: float) -> float:
        return math.sqrt(max(0.0, own * own - 2 * phi * own * other + other * other))

    below, above = side(p - low_1, high_2 - q), side(high_1 - p, q - low_2)
    return max(-1.0, p - q - below), min(1.0, p - q + above)


def _corrected_phi(counts: PairedCounts) -> float:
    """phi with Newcombe's continuity correction, which only applies to a positive one."""
    a, b, c, d = counts.both, counts.wins, counts.losses, counts.neither
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if not margins:
        return 0.0
    excess: float = a * d - b * c
    if excess > 0:
        excess = max(0.0, excess - counts.n / 2)
    return excess / math.sqrt(margins)
