"""Success rates with their uncertainty.

A rate is shown with its Wilson score interval, whose coverage is close to the nominal one for small samples (that of
the textbook interval ``p +- 1.96 s`` falls to 40 % near 0 and 1). A gate uses the wider Clopper-Pearson interval, whose
coverage is never below the nominal one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from rlinf_isaac.stats.paired import PairedCounts, mcnemar


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided Wilson score interval of a binomial proportion, within [0, 1].

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).

    Raises:
        ValueError: `n` is 0, `successes` is not in [0, n], or `confidence` not in (0, 1).
    """
    _check(successes, n, confidence)
    return _wilson(successes / n, n, confidence)


def _wilson(rate: float, n: float, confidence: float) -> tuple[float, float]:
    """The Wilson interval of a rate in `n` trials, which need not be whole."""
    # scipy.stats is not used, because it takes 0.7 s to import and every evaluation reports this interval.
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half_width = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At 0 and n successes the bound is exactly 0 or 1, but the formula gives a rounding error.
    low = 0.0 if rate == 0 else max(0.0, centre - half_width)
    high = 1.0 if rate == 1 else min(1.0, centre + half_width)
    return low, high


def clopper_pearson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided exact interval of a binomial proportion. Its coverage is never below `confidence`.

    Source: C. Clopper and E. S. Pearson, The use of confidence or fiducial limits, Biometrika 26 (1934).

    Raises:
        ValueError: as `wilson_interval`.
    """
    from scipy.stats import binomtest  # imported here, because it takes 0.7 s

    _check(successes, n, confidence)
    interval = binomtest(successes, n).proportion_ci(confidence, "exact")
    return float(interval.low), float(interval.high)


def difference_bound(counts: PairedCounts, alpha: float) -> float:
    """Exact one-sided lower confidence bound of (success rate of the first) - (that of the second), for paired data.

    The difference is P(only the first solves) - P(only the second solves). Each of the two counts is binomial, so the
    Clopper-Pearson bounds at alpha / 2 hold together with probability >= 1 - alpha, for any true rates and any
    correlation (Bonferroni). A test that rejects "worse by `margin` or more" if the bound is above -margin therefore
    has an error probability of at most alpha. It is conservative: an unconditional exact test that searches over the
    unknown discordance needs fewer episodes (H.-M. Hsueh, J.-P. Liu, J. J. Chen, Unconditional exact tests for
    equivalence or noninferiority for paired binary endpoints, Biometrics 57 (2001)).

    Raises:
        ValueError: there is no pair, or `alpha` is not in (0, 1).
    """
    # A two-sided interval at 1 - alpha has alpha / 2 in each tail.
    low = clopper_pearson_interval(counts.wins, counts.n, 1 - alpha)[0]
    high = clopper_pearson_interval(counts.losses, counts.n, 1 - alpha)[1]
    return low - high


@dataclass(frozen=True)
class RateEstimate:
    """A success rate and its Wilson interval, in [0, 1]. It prints as ``86.0 % [73.8, 93.0] (43/50)``."""

    successes: int
    n: int
    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, successes: int, n: int, confidence: float = 0.95) -> RateEstimate:
        """Estimate from counts. Raises ValueError as `wilson_interval`."""
        low, high = wilson_interval(successes, n, confidence)
        return cls(successes, n, successes / n, low, high)

    def __str__(self) -> str:
        return f"{self.rate:.1%} [{self.low * 100:.1f}, {self.high * 100:.1f}] ({self.successes}/{self.n})".replace(
            "%", " %"
        )


def macro_average(counts: Sequence[tuple[int, int]], confidence: float = 0.95) -> RateEstimate:
    """The mean of the success rates of several tasks, in which each task counts the same.

    The interval respects that the tasks are strata. The mean p of T rates, each of n_t episodes, has the variance
    V = sum q_t (1 - q_t) / (n_t T^2), where q_t = (k_t + 1) / (n_t + 2) stands for the true rate of task t, so that a
    task in which all or no episodes were solved has a variance, too. As many independent episodes with one rate as have
    this variance,

        N = q (1 - q) / V        with q the mean of the q_t,

    have the Wilson interval that is returned. N is the number of episodes where the tasks are equally difficult, and
    larger where they differ, because their differences are no chance. Of a single task it is that task's Wilson
    interval. Summed over all outcomes of two or three tasks of 10 to 20 episodes, it covers 94 % or more; the interval
    that adds the squared half-widths of the tasks' intervals ("square-and-add") only 88 % near rates of 100 %.

    Args:
        counts: (successes, episodes) of each task.
        confidence: of the two-sided interval.

    Source: E. L. Korn, B. I. Graubard, Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data, Survey Methodology 24 (1998), for the effective sample size; N. Dean, M. Pagano,
    Evaluating confidence interval methods for binomial proportions in clustered surveys, J. Surv. Stat. Methodol. 3
    (2015), for its use in Wilson's interval.

    Raises:
        ValueError: there is no task; or as `wilson_interval`.
    """
    if not counts:
        raise ValueError("an average needs at least one task")
    successes, total = sum(solved for solved, _ in counts), sum(n for _, n in counts)
    if len(counts) == 1:
        return RateEstimate.of(successes, total, confidence)
    for solved, n in counts:
        _check(solved, n, confidence)
    rate = sum(solved / n for solved, n in counts) / len(counts)
    likely = [(solved + 1) / (n + 2) for solved, n in counts]
    variance = sum(q * (1 - q) / n for q, (_, n) in zip(likely, counts, strict=True)) / len(counts) ** 2
    mean = sum(likely) / len(counts)
    return RateEstimate(successes, total, rate, *_wilson(rate, mean * (1 - mean) / variance, confidence))


@dataclass(frozen=True)
class PairedGain:
    """The gain in success between two checkpoints on the same seeds.

    Attributes:
        before, after: number of successes of each.
        n: number of seeds.
        gained: seeds that only the second one solved.
        lost: seeds that only the first one solved.
        p_value: exact one-sided probability of at least as many gains if gains and losses were equally likely.
    """

    before: int
    after: int
    n: int
    gained: int
    lost: int
    p_value: float

    @classmethod
    def of(cls, before: Mapping[Any, bool], after: Mapping[Any, bool]) -> PairedGain:
        """Compares two mappings seed -> success with the exact form of McNemar's test.

        Raises:
            ValueError: the seeds are not the same, or there are none.
        """
        if before.keys() != after.keys() or not before:
            raise ValueError(f"{len(before)} and {len(after)} episodes are not on the same seeds")
        gained = sum(after[seed] and not before[seed] for seed in before)
        lost = sum(before[seed] and not after[seed] for seed in before)
        p_value = mcnemar(gained, lost, "greater")
        return cls(sum(before.values()), sum(after.values()), len(before), gained, lost, p_value)


def _check(successes: int, n: int, confidence: float) -> None:
    if n < 1:
        raise ValueError(f"a rate needs at least one trial, not n = {n}")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1; 95 % is 0.95")
