"""Compares two recipes, each trained several times from different seeds, and not only two checkpoints.

Episodes of one checkpoint say how good that checkpoint is. Trained again, the same recipe gives another one, whose true
success rate differs by some points. With one training of each recipe that noise cannot be told from a gain, however
many episodes are played.

The test here is Welch's t-test on the success rates of the trainings: the unit that was repeated independently is the
training, so it is what is counted. Its variance is at least the binomial one of the episodes, since a few trainings may
agree by chance, and rates of 0 or 1 have no variance of their own. `benchmarks/verdicts.py --retraining` simulates it
beside what else was considered:

* a bootstrap over trainings and episodes: asymptotic in the number of trainings, and with 2 to 5 of them wrong in up to
  29 % (a likelihood-ratio test of the beta-binomial model is asymptotic in it, too; it was not simulated);
* permuting trainings between the recipes: exact, but with 3 trainings each its smallest p-value is 0.1, and the
  difference could never be shown with fewer than 4;
* pooling all episodes, as if they were of one checkpoint: wrong in up to 70 %.

That trainings play the same seeds makes episodes of one seed alike in all of them. It cancels in the difference, and
makes the test cautious, not wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One recipe with its trainings.

    Attributes:
        rates: success rate of each training's checkpoint, in [0, 1].
        sampling: (per training) variance of that rate through the number of episodes alone.
    """

    rates: tuple[float, ...]
    sampling: tuple[float, ...]

    @classmethod
    def of(cls, counts: Sequence[tuple[int, int]]) -> Arm:
        """From (successes, episodes) of each training.

        Raises:
            ValueError: there is no training, or one has no episodes.
        """
        if not counts or any(not 0 <= solved <= n or n < 1 for solved, n in counts):
            raise ValueError(f"{list(counts)} are not successes and episodes of at least one training")
        # (k + 1) / (n + 2), so that a recipe that solves all or nothing has a variance, too.
        likely = (sum(solved for solved, _ in counts) + 1) / (sum(n for _, n in counts) + 2)
        return cls(tuple(solved / n for solved, n in counts), tuple(likely * (1 - likely) / n for _, n in counts))

    @property
    def trainings(self) -> int:
        """Number of trainings."""
        return len(self.rates)

    @property
    def mean(self) -> float:
        """Mean success rate of the recipe; each training counts the same."""
        return sum(self.rates) / self.trainings

    @property
    def spread(self) -> float | None:
        """Standard deviation of the measured rates between trainings, episodes' noise included; None for one."""
        if self.trainings < 2:
            return None
        return math.sqrt(sum((rate - self.mean) ** 2 for rate in self.rates) / (self.trainings - 1))

    @property
    def retraining_sd(self) -> float | None:
        """Standard deviation of the true rates between trainings: the measured one without the episodes' noise, at
        least 0 (method of moments). None for one training: it is not known."""
        spread = self.spread
        if spread is None:
            return None
        return math.sqrt(max(0.0, spread**2 - sum(self.sampling) / self.trainings))

    @property
    def variance(self) -> float:
        """Variance of `mean`, at least that through the episodes alone.

        Raises:
            ValueError: there is a single training.
        """
        if self.spread is None:
            raise ValueError("the noise of retraining is not known of a single training")
        return max(self.spread**2, sum(self.sampling) / self.trainings) / self.trainings

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Two-sided t interval of the recipe's rate within [0, 1]; None for one training."""
        if self.trainings < 2:
            return None
        half = _quantile(self.trainings - 1, confidence) * math.sqrt(self.variance)
        return max(0.0, self.mean - half), min(1.0, self.mean + half)


@dataclass(frozen=True)
class RetrainingGain:
    """The difference of two recipes' success rates.

    Attributes:
        difference: mean of the first minus mean of the second.
        low, high: its 95 % interval, retraining and episodes included; None where retraining noise is not known.
        p_value: two-sided; None where it is not known.
        p_greater: one-sided, against "the first is not better"; None likewise.
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    p_greater: float | None

    @property
    def known(self) -> bool:
        """Whether both recipes were trained at least twice."""
        return self.p_value is not None


def compare_arms(first: Arm, second: Arm, confidence: float = 0.95) -> RetrainingGain:
    """Welch's t-test and interval of two recipes.

    Source: B. L. Welch, The generalization of "Student's" problem when several different population variances are
    involved, Biometrika 34 (1947).
    """
    difference = first.mean - second.mean
    if min(first.trainings, second.trainings) < 2:
        return RetrainingGain(difference, None, None, None, None)
    from scipy.special import stdtr  # takes 0.3 s to import

    u, v = first.variance, second.variance
    freedom = (u + v) ** 2 / (u * u / (first.trainings - 1) + v * v / (second.trainings - 1))
    t, half = difference / math.sqrt(u + v), _quantile(freedom, confidence) * math.sqrt(u + v)
    return RetrainingGain(
        difference,
        max(-1.0, difference - half),
        min(1.0, difference + half),
        float(2 * stdtr(freedom, -abs(t))),
        float(stdtr(freedom, -t)),
    )


def _quantile(freedom: float, confidence: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))
