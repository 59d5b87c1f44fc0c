"""Says of a tie for the first place how many episodes more would settle it, if the observed rates were true."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_project.comparison.compare import ANYTIME, Comparison
from mlflow_project.comparison.episodes import solved
from mlflow_project.comparison.intervals import difference_of, words
from mlflow_project.comparison.standings import Pair

if TYPE_CHECKING:
    from rlinf_isaac.stats.power import Discordance

MOST = 10_000
"""Largest number of further episodes of each checkpoint that is named."""


def tie_notes(comparison: Comparison) -> list[str]:
    """One sentence on the first two places if they are tied, else none."""
    pair = next((each for each in comparison.pairs if {each.first, each.second} == {0, 1}), None)
    decided = comparison.separation is not None and comparison.separation.decided
    if pair is None or decided or pair.better is not None:
        return []
    first, second = (comparison.standings[each].label for each in (0, 1))
    unit = "seeds" if pair.counts is not None else "episodes of each"
    if _level(comparison, pair):
        return [
            f"{first} and {second} solved equally many; how many {unit} more would tell them apart cannot be said"
            " (`rlinf-isaac plan` says how many show a difference that you name)."
        ]
    more = episodes_more(comparison, pair)
    difference = difference_of(comparison, pair)
    uncertain = f", which is itself uncertain: {words(difference)}" if difference else ", which is itself uncertain"
    many = f"more than {MOST:,}" if more is None else f"about {_rounded(more):,}"
    return [
        f"To tell {first} and {second} apart takes {many} {unit} more, if the rates stay as they are (80 % power);"
        f" that holds for the observed difference{uncertain}."
    ]


def episodes_more(comparison: Comparison, pair: Pair) -> int | None:
    """Further episodes of each checkpoint with which a tied pair's test has 80 % power at the observed rates and
    discordance, at the strictest step of Holm's correction over the undecided pairs; None: more than `MOST`, or the
    rates are equal."""
    from rlinf_isaac.stats import power  # imports numpy and scipy

    # Holm has rejected the other pairs.
    undecided = max(1, sum(each.adjusted > comparison.alpha for each in comparison.pairs))
    alpha, counts = comparison.alpha / undecided, pair.counts
    if counts is None:
        (a, n), (b, m) = (solved(comparison.standings[each].evaluation.rows) for each in (pair.first, pair.second))
        needed, played = power.unpaired_roughly((a / n, b / m), alpha), min(n, m)
    else:
        ahead, behind = max(counts.wins, counts.losses), min(counts.wins, counts.losses)
        seen, played = power.Discordance(ahead / counts.n, behind / counts.n), counts.n
        if pair.test == ANYTIME:
            return _with_e_process(comparison, seen, (ahead, behind))
        needed = power.paired_episodes(seen, alpha)
    more = None if needed is None else max(1, needed - played)
    return None if more is None or more > MOST else more


def _with_e_process(comparison: Comparison, seen: Discordance, counted: tuple[int, int]) -> int | None:
    """Further seeds until the e-process decides, beginning with what it has counted."""
    from rlinf_isaac.stats import sequential_power

    needed = comparison.separation.needed if comparison.separation else len(comparison.standings) / comparison.alpha
    return sequential_power.episodes(seen, checkpoints=1, alpha=1 / needed, most=MOST, counted=counted)


def _level(comparison: Comparison, pair: Pair) -> bool:
    if pair.counts is not None:
        return pair.counts.wins == pair.counts.losses
    return comparison.standings[0].success.rate == comparison.standings[1].success.rate


def _rounded(count: int) -> int:
    """Two significant digits; what is not known better should not look so."""
    return round(count, 2 - len(str(count))) if count >= 100 else count
