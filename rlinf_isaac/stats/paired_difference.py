"""The interval of the difference of two success rates that were measured on the same episodes."""

from __future__ import annotations

import math
from typing import NamedTuple

from rlinf_isaac.stats.paired import PairedCounts
from rlinf_isaac.stats.rates import wilson_interval


class Difference(NamedTuple):
    """A difference of two rates with its interval, in [-1, 1]."""

    value: float
    low: float
    high: float


def paired_difference(counts: PairedCounts, confidence: float = 0.95) -> Difference:
    """(success rate of the first) - (that of the second), with Newcombe's score interval for paired data.

    Of the two Wilson intervals it takes the distances from the rates, and combines them with the correlation of the
    outcomes, from which half an episode is taken as a correction of continuity where it is positive. Its coverage is
    near the nominal one for small samples, and it never leaves [-1, 1]; a gate uses `rates.difference_bound` instead,
    whose coverage is never below the nominal one.

    Source: R. G. Newcombe, Improved confidence intervals for the difference between binomial proportions based on
    paired data, Statistics in Medicine 17 (1998), method 10.

    Raises:
        ValueError: there is no pair, or `confidence` is not in (0, 1).
    """
    n, first, second = counts.n, counts.both + counts.wins, counts.both + counts.losses
    (low_1, high_1), (low_2, high_2) = (wilson_interval(k, n, confidence) for k in (first, second))
    rate_1, rate_2, phi = first / n, second / n, _corrected_phi(counts)
    value = (counts.wins - counts.losses) / n
    below = _joined(rate_1 - low_1, high_2 - rate_2, phi)
    above = _joined(high_1 - rate_1, rate_2 - low_2, phi)
    return Difference(value, max(-1.0, value - below), min(1.0, value + above))


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))


def _corrected_phi(counts: PairedCounts) -> float:
    a, b, c, d = counts.both, counts.wins, counts.losses, counts.neither
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    excess = a * d - b * c
    corrected = max(excess - counts.n / 2, 0.0) if excess > 0 else excess
    return corrected / math.sqrt(margins)
