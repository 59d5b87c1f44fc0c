"""Compares two success rates of independent episodes, exactly."""

from __future__ import annotations

import math


def fisher(first: tuple[int, int], second: tuple[int, int]) -> float:
    """One-sided p-value of Fisher's exact test against "the first is not better than the second".

    If both had the same rate, then given the sum of the successes those of the first would be hypergeometric; the
    p-value is the probability of at least as many. It is conservative: the error rate is at most the level, for any
    common rate, and below it for few episodes.

    Args:
        first, second: (successes, episodes).

    Source: R. A. Fisher, The logic of inductive inference, J. R. Stat. Soc. 98 (1935). scipy.stats is not used, because
    it takes 0.7 s to import.

    Raises:
        ValueError: a number of successes is not between 0 and that of the episodes.
    """
    (a, n), (b, m) = first, second
    if not (0 <= a <= n and 0 <= b <= m):
        raise ValueError(f"{a} of {n} and {b} of {m} are no counts of successes")
    total = a + b
    tail = sum(math.comb(n, k) * math.comb(m, total - k) for k in range(a, min(n, total) + 1))
    return tail / math.comb(n + m, total)
