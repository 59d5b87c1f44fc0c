"""Comparing checkpoints while their episodes come in, and stopping as soon as the data decide.

An ordinary p-value that is looked at after every batch finds a difference sooner or later, also where there is none.
An e-process may be looked at any time: it is a capital that starts at 1 and, where the null hypothesis holds, is not
expected to grow under any rule for stopping, so it ever reaches 1 / alpha with a probability of at most alpha (Ville
1939).

The bets are on the seeds that only one of two checkpoints solves. "The first is not better" says that it wins each of
these with a probability of at most 1/2, whatever happened before. Staking the share 2 q - 1 of the capital on the first
multiplies it by 2 q per win and 2 (1 - q) per loss; the mixture over q uniform in (1/2, 1] is

    E(wins, losses) = 2 * 2^(w + l) * integral_{1/2}^{1} q^w (1 - q)^l dq

Sources: J. Ville, Etude critique de la notion de collectif (1939); for the mixture, H. Robbins, Statistical methods
related to the law of the iterated logarithm, Ann. Math. Statist. 41 (1970); A. Ramdas, P. Grunwald, V. Vovk, G. Shafer,
Game-theoretic statistics and safe anytime-valid inference, Statist. Sci. 38 (2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05
"""Error rate of every decision this project makes."""


def log_e_value(wins: int | np.ndarray, losses: int | np.ndarray) -> np.ndarray:
    """Natural logarithm of E(wins, losses) against "the first is not better"; elementwise for arrays.

    The integral is B(w + 1, l + 1) times the upper tail of that beta distribution at 1/2.
    """
    from scipy.special import betainc, betaln  # 0.3 s, which `--help` must not pay

    wins, losses = np.asarray(wins, dtype=float), np.asarray(losses, dtype=float)
    # I_{1/2}(l + 1, w + 1) is the upper tail of I_{1/2}(w + 1, l + 1), without the loss of digits in 1 - I.
    # It underflows when losses are far ahead; then the capital is gone, and log 0 is right.
    with np.errstate(divide="ignore"):
        tail = np.log(betainc(losses + 1, wins + 1, 0.5))
    return (wins + losses + 1) * math.log(2) + betaln(wins + 1, losses + 1) + tail


def anytime_p_value(first: Mapping[int, bool], second: Mapping[int, bool]) -> float:
    """Two-sided p-value that stays valid whenever, and for whatever reason, the evaluation was stopped.

    1 over the largest capital so far, where half of it bets on each side. Over the common seeds in their order.
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
        best: index of the one that is nearest to being separated from all others.
        e_value: its smallest capital among the bets against each of the others, at its largest over time.
        needed: what decides.
    """

    best: int
    e_value: float
    needed: float

    @property
    def decided(self) -> bool:
        """Whether `best` is better than each of the others, at the error rate that was asked for."""
        return self.e_value >= self.needed


def separate(outcomes: Sequence[Mapping[int, bool]], alpha: float = ALPHA) -> Separation:
    """Is one of several checkpoints better than each of the others? Of seed -> success for each, over common seeds.

    One is called the best when each of its capitals against the K - 1 others has reached K / alpha. To be called best
    wrongly it must beat, at that height, a fixed checkpoint that it is not better than. So at most one such event per
    checkpoint counts, each of probability alpha / K: with probability >= 1 - alpha no call is wrong, however many
    checkpoints tie and whenever one looks. (An average of the capitals would be valid with 1 / alpha, but against
    "better than none of the others", which is not the question.)

    Raises:
        ValueError: fewer than two.
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
    """Evaluate in batches of `batch` seeds, until `separate` at `alpha` or all seeds are done."""

    batch: int
    alpha: float = ALPHA

    def rounds(self, seeds: range) -> Iterator[range]:
        """The seeds of one batch after the other."""
        for begin in range(0, len(seeds), self.batch):
            yield seeds[begin : begin + self.batch]


def _running_counts(first: Mapping[int, bool], second: Mapping[int, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Wins and losses of the first after each common seed, in the order of seeds."""
    seeds = sorted(first.keys() & second.keys())
    ahead = np.array([int(first[seed]) - int(second[seed]) for seed in seeds], dtype=int)
    return np.cumsum(ahead > 0), np.cumsum(ahead < 0)
