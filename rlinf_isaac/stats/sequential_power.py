"""What an evaluation that goes on until it is decided can show: exact power of the e-process of `sequential.separate`.

The e-value changes only at the seeds that one of two checkpoints solves alone. Of these the wins are binomial, so a
walk over (seeds that differ, wins) gives the probability of reaching the border at any of them. `separate` takes the
largest e-value so far, so it does not matter after how many episodes one looks.
"""

from __future__ import annotations

import math

import numpy as np

from rlinf_isaac.stats import power
from rlinf_isaac.stats.sequential import ALPHA, log_e_value


def decided(discordance: power.Discordance, n: int, checkpoints: int = 2, alpha: float = ALPHA) -> float:
    """Probability that `n` seeds or fewer show the first of a pair to be better, of so many checkpoints.

    Of more than two it is that of one pair; that the best beats all others is less probable.
    """
    return _at(n, discordance, _reached(discordance, n, checkpoints / alpha))


def episodes(
    discordance: power.Discordance,
    checkpoints: int = 2,
    alpha: float = ALPHA,
    wanted: float = power.POWER,
    most: int = power.MOST,
    counted: tuple[int, int] = (0, 0),
) -> int | None:
    """Smallest number of (further) seeds within which the first of a pair is shown to be better with probability
    `wanted`; None if it is above `most`.

    Args:
        discordance: true probabilities of the outcomes that differ.
        checkpoints, alpha: as of `decided`; the e-value that decides is checkpoints / alpha.
        wanted: power, in (0, 1).
        most: largest number that is looked for.
        counted: seeds so far that only the first and only the second have solved, where it is undecided yet.
    """
    if discordance.wins <= discordance.losses:
        return None
    n = min(64, most)
    while _at(n, discordance, reached := _reached(discordance, n, checkpoints / alpha, counted)) < wanted:
        if n == most:
            return None
        n = min(2 * n, most)
    last = reached
    return power.needed(lambda m: _at(m, discordance, last), wanted, n * 0.75, n)


def _at(n: int, discordance: power.Discordance, reached: np.ndarray) -> float:
    total = discordance.wins + discordance.losses
    if total >= 1:
        return float(reached[min(n, len(reached) - 1)])
    d = np.arange(min(n + 1, len(reached)))
    return float(np.sum(power.binomial_at(d, n, total) * reached[d]))


def _reached(discordance: power.Discordance, n: int, needed: float, counted: tuple[int, int] = (0, 0)) -> np.ndarray:
    """(most seeds that differ + 1,) probability that the e-value has reached `needed` by the d-th further of them."""
    total = discordance.wins + discordance.losses
    if total <= 0:
        return np.zeros(1)
    most = min(n, math.ceil(n * total + 9 * math.sqrt(n * total * max(0.0, 1 - total)) + 9))
    won, differed = counted[0], sum(counted)
    border = np.maximum(_border(differed + most, math.log(needed))[differed:] - won, 0)  # in further wins
    share = discordance.wins / total
    alive, reached = np.ones(1), np.zeros(most + 1)
    for d in range(1, most + 1):
        after = np.zeros(d + 1)
        after[1:] += share * alive
        after[:-1] += (1 - share) * alive
        reached[d] = reached[d - 1] + after[border[d] :].sum()
        after[border[d] :] = 0
        alive = after
    return reached


def _border(most: int, level: float) -> np.ndarray:
    """(most + 1,) smallest number of wins among d seeds that differ whose log e-value is at least `level`; d + 1 where
    none suffices."""
    d = np.arange(most + 1)
    k = np.minimum(np.ceil(d / 2 + np.sqrt(d * level / 2)), d + 1)
    while (much := (k >= 1) & (log_e_value(np.maximum(k - 1, 0), np.maximum(d - k + 1, 0)) >= level)).any():
        k -= much
    while (few := (k <= d) & (log_e_value(k, np.maximum(d - k, 0)) < level)).any():
        k += few
    return k.astype(int)
