"""How many episodes a comparison of two checkpoints takes, or what a given number can show, for each way to play them.

The tests are those of a comparison: McNemar's on the same seeds, Boschloo's on different ones, and the e-process of
``eval --until-decided``, which needs more at most and often stops sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlinf_isaac.stats import boschloo, power, sequential_power

MCNEMAR, BOSCHLOO, SEQUENTIAL = "exact McNemar", "Boschloo", "e-process, --until-decided"


@dataclass(frozen=True)
class Row:
    """One way to play the episodes.

    Attributes:
        correlation: phi of the outcomes on one seed; None: the checkpoints meet different seeds.
        test: name of the test.
        episodes: that each checkpoint needs for the power that was asked for; None: more than the test is made for.
        roughly: whether `episodes` is of the normal approximation, because the exact test is not made for so many.
        power_at: exact power at the number of episodes that was asked about; None: none was, or it is not computed.
    """

    correlation: float | None
    test: str
    episodes: int | None
    roughly: bool
    power_at: float | None

    @property
    def paired(self) -> bool:
        """Whether the checkpoints meet the same seeds."""
        return self.correlation is not None


def pairs_of(checkpoints: int) -> int:
    """Number of pairs of so many checkpoints."""
    return checkpoints * (checkpoints - 1) // 2


def rows(
    rates: tuple[float, float],
    correlations: Sequence[float],
    alpha: float,
    wanted: float = power.POWER,
    episodes: int | None = None,
    checkpoints: int = 2,
) -> tuple[Row, ...]:
    """A row for each correlation, one of the e-process at the first of these, then one for different seeds.

    Args:
        rates: true success rates of the two checkpoints, in [0, 1].
        correlations: phi of their outcomes on one seed; all possible at these rates.
        alpha: two-sided error rate over all pairs; each test is made at alpha / pairs, as Holm's first step would.
        wanted: power, in (0, 1).
        episodes: of each checkpoint, to tell what they can show.
        checkpoints: how many are compared.

    Raises:
        ValueError: as `power.Discordance.of`.
    """
    found, level = [], alpha / pairs_of(checkpoints)
    differing = [power.Discordance.of(rates, correlation) for correlation in correlations]
    for correlation, each in zip(correlations, differing, strict=True):
        at = None if episodes is None else power.paired_power(each, episodes, level)
        found.append(Row(correlation, MCNEMAR, power.paired_episodes(each, level, wanted), False, at))
    if differing:
        first = differing[0]
        better = power.Discordance(max(first.wins, first.losses), min(first.wins, first.losses))
        at = None if episodes is None else sequential_power.decided(better, episodes, checkpoints, alpha)
        needed = sequential_power.episodes(better, checkpoints, alpha, wanted)
        found.append(Row(correlations[0], SEQUENTIAL, needed, False, at))
    needed, roughly = power.unpaired_episodes(rates, level, wanted), False
    if needed is None:
        needed, roughly = power.unpaired_roughly(rates, level, wanted), True
    at = power.unpaired_power(rates, episodes, level) if episodes and episodes <= boschloo.LIMIT else None
    return (*found, Row(None, BOSCHLOO, needed, roughly and needed is not None, at))
