"""Compares checkpoints while their episodes come in, and stops as soon as the difference is significant.

An ordinary p-value that is computed after every batch becomes significant sooner or later even without a difference.
An e-process may be evaluated at any time. It is a capital that starts at 1. If the null hypothesis holds, its expected
value stays at most 1 under any stopping rule, so the probability that it ever reaches 1 / alpha is at most alpha (Ville
1939).

The bets are on the seeds that only one of two checkpoints solves. The null hypothesis "the first is not better" says
that the first wins each of these with a probability of at most 1/2, whatever happened before. Betting the share 2 q - 1
of the capital on the first multiplies it by 2 q per win and 2 (1 - q) per loss. The mixture over q uniform in (1/2, 1]
is

    E(wins, losses) = 2 * 2^(w + l) * integral_{1/2}^{1} q^w (1 - q)^l dq

Sources: J. Ville, Etude critique de la notion de collectif (1939); for the mixture, H. Robbins, Statistical methods
related to the law of the iterated logarithm, Ann. Math. Statist. 41 (1970); A. Ramdas, P. Grunwald, V. Vovk, G. Shafer,
Game-theoretic statistics and safe anytime-valid inference, Statist. Sci. 38 (2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ALPHA = 0.05
"""Error rate of every decision in this project."""


def log_e_value(wins: int | np.ndarray, losses: int | np.ndarray) -> np.ndarray:
    """Natural logarithm of E(wins, losses) against "the first is not better"; elementwise for arrays.

    The integral is B(w + 1, l + 1) times the upper tail of that beta distribution at 1/2.
    """
    from scipy.special import betainc, betaln  # takes 0.3 s to import, for which `--help` must not wait

    wins, losses = np.asarray(wins, dtype=float), np.asarray(losses, dtype=float)
    # I_{1/2}(l + 1, w + 1) equals the upper tail 1 - I_{1/2}(w + 1, l + 1), without the loss of digits in 1 - I.
    # It underflows if there are far more losses; then the capital is 0, and its logarithm is -infinity.
    with np.errstate(divide="ignore"):
        tail = np.log(betainc(losses + 1, wins + 1, 0.5))
    return (wins + losses + 1) * math.log(2) + betaln(wins + 1, losses + 1) + tail


def anytime_p_value(first: Mapping[Any, bool], second: Mapping[Any, bool]) -> float:
    """Two-sided p-value that is valid for any time of, and any reason for, stopping the evaluation.

    It is 1 over the largest capital so far, of which half is bet on each side, over the common seeds in their order.
    """
    wins, losses = _running_counts(first, second)
    if not len(wins):
        return 1.0
    both_sides = np.logaddexp(log_e_value(wins, losses), log_e_value(losses, wins)) - math.log(2)
    return float(min(1.0, math.exp(-max(0.0, both_sides.max()))))


@dataclass(frozen=True)
class Separation:
    """How far the best of several checkpoints is separated from the rest.

    Attributes:
        best: index of the checkpoint that is nearest to being separated from all others.
        e_value: the smallest of its capitals against the others, each taken at its maximum over time.
        needed: the e-value at which the comparison is decided.
    """

    best: int
    e_value: float
    needed: float

    @property
    def decided(self) -> bool:
        """Whether `best` is better than each of the others, at the chosen error rate."""
        return self.e_value >= self.needed


def separate(outcomes: Sequence[Mapping[Any, bool]], alpha: float = ALPHA) -> Separation:
    """Tests whether one of K checkpoints is better than each of the others.

    A checkpoint is called the best when each of its capitals against the K - 1 others has reached K / alpha. If that is
    wrong for a checkpoint, another one is at least as good, and the capital against that fixed one has reached
    K / alpha, which has a probability of at most alpha / K. Summed over the K checkpoints, the probability of a wrong
    call is at most alpha, for any number of ties and at any time. (An average of the capitals would need only
    1 / alpha, but its null hypothesis is "better than none of the others", which is not the question.)

    Args:
        outcomes: seed -> success for each checkpoint. The common seeds of two checkpoints are compared.
        alpha: probability of a wrong call.

    Raises:
        ValueError: there are fewer than two checkpoints.
    """
    if len(outcomes) < 2:
        raise ValueError("there is nothing to separate in fewer than two checkpoints")
    smallest = [
        min(
            float(log_e_value(*_running_counts(first, second)).max(initial=0.0))
            for j, second in enumerate(outcomes)
            if j != i
        )
        for i, first in enumerate(outcomes)
    ]
    best = int(np.argmax(smallest))
    return Separation(best, math.exp(min(smallest[best], 700.0)), len(outcomes) / alpha)


@dataclass(frozen=True)
class StopRule:
    """Evaluate in batches of `batch` seeds, until `separate` decides at `alpha` or all seeds are done."""

    batch: int
    alpha: float = ALPHA

    def rounds(self, seeds: range) -> Iterator[range]:
        """Yields the seeds of each batch."""
        for begin in range(0, len(seeds), self.batch):
            yield seeds[begin : begin + self.batch]


def _running_counts(first: Mapping[Any, bool], second: Mapping[Any, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative wins and losses of the first checkpoint after each common seed, in the order of seeds (of several
    tasks: seed after seed, each in all tasks, so that a further batch of seeds goes on from there)."""
    seeds = sorted(first.keys() & second.keys())
    ahead = np.array([int(first[seed]) - int(second[seed]) for seed in seeds], dtype=int)
    return np.cumsum(ahead > 0), np.cumsum(ahead < 0)
