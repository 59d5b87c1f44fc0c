"""How many episodes show a difference between two checkpoints: exact power of the tests of a comparison.

Nothing is approximated by a normal distribution but the number with which a search begins. The power of an exact test
rises with the episodes in saw teeth, because counts are whole; `needed` gives a number from which on it stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from rlinf_isaac.stats import boschloo

MOST = 10_000
"""Largest number of paired episodes that is looked for."""
POWER = 0.8
_STEADY = 4
"""How many further numbers of episodes must have the power, too."""


@dataclass(frozen=True)
class Discordance:
    """Probabilities of the two outcomes of a seed that tell two checkpoints apart.

    Attributes:
        wins: that only the first solves it.
        losses: that only the second does.
    """

    wins: float
    losses: float

    @classmethod
    def of(cls, rates: tuple[float, float], correlation: float) -> Discordance:
        """From both success rates and the correlation phi of the outcomes on one seed.

        Raises:
            ValueError: a rate is not in [0, 1], or the correlation is impossible at these rates; the text says which
                are possible.
        """
        p, q = rates
        if not (0 <= p <= 1 and 0 <= q <= 1):
            raise ValueError(f"rates {p:g} and {q:g} are not both in [0, 1]")
        spread = math.sqrt(p * (1 - p) * q * (1 - q))
        both = p * q + correlation * spread
        low, high = max(0.0, p + q - 1), min(p, q)
        if not low - 1e-9 <= both <= high + 1e-9:
            # Towards 0, so that what is printed is itself possible.
            least, most = math.ceil((low - p * q) / spread * 100) / 100, math.floor((high - p * q) / spread * 100) / 100
            raise ValueError(
                f"rates {p:g} and {q:g} cannot have the correlation {correlation:g}, only {least:g} to {most:g}"
            )
        both = min(high, max(low, both))
        return cls(p - both, q - both)


def paired_power(discordance: Discordance, n: int, alpha: float) -> float:
    """Probability that the exact two-sided McNemar test of `n` seeds at level `alpha` rejects, in either direction.

    The seeds that differ are binomial (n, wins + losses), and the wins among them binomial again.

    Source: S. W. Duffy, Asymptotic and exact power for the McNemar test and its analogue with R controls per case,
    Biometrics 40 (1984).
    """
    from scipy.special import bdtrc  # takes 0.3 s to import

    total = discordance.wins + discordance.losses
    if total <= 0 or n < 1:
        return 0.0
    spread = 9 * math.sqrt(n * total * max(0.0, 1 - total)) + 9  # all but 1e-18 of the probability
    d = np.arange(max(0, math.floor(n * total - spread)), min(n, math.ceil(n * total + spread)) + 1)
    needed, share = _wins_needed(alpha)[d], discordance.wins / total
    able = needed <= d  # of few seeds no number of wins suffices
    weight, d, k = binomial_at(d[able], n, total), d[able], needed[able].astype(float)
    if not len(d):
        return 0.0
    return float(np.sum(weight * (bdtrc(k - 1, d, share) + bdtrc(k - 1, d, 1 - share))))


def unpaired_power(rates: tuple[float, float], n: int, alpha: float) -> float:
    """Probability that Boschloo's two-sided test of `n` episodes each at level `alpha` rejects; `n` up to its limit."""
    return boschloo.power(rates, (n, n), alpha)


def paired_episodes(discordance: Discordance, alpha: float, power: float = POWER, most: int = MOST) -> int | None:
    """Smallest number of seeds from which McNemar's exact test has this power; None if it is above `most`."""
    p, q = discordance.wins, discordance.losses
    if p == q:
        return None
    z, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    guess = (z * math.sqrt(p + q) + z_power * math.sqrt(max(0.0, p + q - (p - q) ** 2))) ** 2 / (p - q) ** 2
    return needed(lambda n: paired_power(discordance, n, alpha), power, guess, most)


def unpaired_episodes(rates: tuple[float, float], alpha: float, power: float = POWER) -> int | None:
    """Smallest number of episodes of each from which Boschloo's test has this power; None if it is above its limit
    (`unpaired_roughly`)."""
    guess = unpaired_roughly(rates, alpha, power)
    if guess is None or guess > 1.3 * boschloo.LIMIT:
        return None
    return needed(lambda n: unpaired_power(rates, n, alpha), power, guess, boschloo.LIMIT)


def unpaired_roughly(rates: tuple[float, float], alpha: float, power: float = POWER) -> int | None:
    """Episodes of each by the normal approximation, for differences that take more than Boschloo's test is made for;
    None for equal rates.

    Source: J. L. Fleiss, B. Levin, M. C. Paik, Statistical methods for rates and proportions, 3rd ed. (2003), (4.14).
    """
    p, q = rates
    if p == q:
        return None
    z, z_power, mean = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power), (p + q) / 2
    root = z * math.sqrt(2 * mean * (1 - mean)) + z_power * math.sqrt(p * (1 - p) + q * (1 - q))
    return math.ceil(root**2 / (p - q) ** 2)


def needed(power_of: Callable[[int], float], power: float, guess: float, most: int) -> int | None:
    """A number n with this power that the next few have as well and n - 1 has not; None if it is above `most`.

    Args:
        power_of: the power at a number of episodes; rises, but for saw teeth.
        power: that is wanted, in (0, 1).
        guess: where the search begins.
    """
    low, high, step = 0, max(1, min(most, round(guess))), max(1, round(guess / 20))
    while power_of(high) < power:
        if high >= most:
            return None
        low, high, step = high, min(most, high + step), 2 * step
    low = max(low, 0)
    probe = high
    while low == 0 and probe > 1:  # from above, as near as it goes
        probe = max(1, probe - step)
        if power_of(probe) < power:
            low = probe
            break
        high, step = probe, 2 * step
        if probe == 1:
            return 1
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(middle) < power:
            low = middle
        else:
            high = middle
    steady = 0
    for n in range(high + 1, min(most, high + 60)):
        if power_of(n) < power:
            high, steady = n + 1, 0
        elif (steady := steady + 1) >= _STEADY:
            break
    return high


@lru_cache(maxsize=32)
def _wins_needed(alpha: float) -> np.ndarray:
    """(most + 1,) smallest number of wins among 0, 1, 2, ... seeds that differ whose two-sided p-value is at most
    `alpha`; d + 1 where none suffices."""
    from scipy.special import bdtrc

    d = np.arange(MOST + 1)
    k = np.ceil(d / 2 + NormalDist().inv_cdf(1 - alpha / 2) * np.sqrt(d) / 2)
    while (much := (k > d / 2 + 1) & (2 * bdtrc(k - 2, d, 0.5) <= alpha)).any():
        k -= much
    k = np.minimum(k, d + 1)
    while (few := (k <= d) & (2 * bdtrc(k - 1, d, 0.5) > alpha)).any():
        k += few
    return k.astype(int)


def binomial_at(k: np.ndarray, n: int, p: float) -> np.ndarray:
    """Binomial probabilities of `k` successes."""
    from scipy.special import gammaln, xlog1py, xlogy

    return np.exp(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, p) + xlog1py(n - k, -p))
