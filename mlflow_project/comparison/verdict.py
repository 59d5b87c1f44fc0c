"""Says in one sentence which checkpoint of a comparison is the best, or which ones are tied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mlflow_project.comparison.standings import Pair, Standing
from rlinf_isaac.stats.sequential import Separation

MOST_NAMES = 8
"""Most checkpoints that a verdict names."""


def verdict(standings: Sequence[Standing], pairs: Sequence[Pair], separation: Separation | None) -> str:
    """The verdict of a comparison; the arguments are the fields of `compare.Comparison`."""
    if len(standings) == 1:
        return f"Only {_with_rate(standings[0])} was evaluated, so there is nothing to compare it with."
    if separation is not None:
        return _of_sequential_test(standings, separation)
    unbeaten = [index for index, standing in enumerate(standings) if standing.rank[0] == 1]
    if len(unbeaten) == 1:
        return _of_unbeaten(standings, pairs, unbeaten[0])
    tied = unbeaten or list(range(len(standings)))  # none is unbeaten if the wins form a circle
    among = [pair for pair in pairs if pair.first in tied and pair.second in tied]
    counts = among[0].counts if len(among) == 1 else None
    seeds = f"{counts.wins} vs {counts.losses} seeds won, " if counts else ""
    p_text = _p_text([pair.adjusted for pair in among], "at least")
    return f"No clear winner: {_names([standings[i] for i in tied])} are statistically tied ({seeds}{p_text})."


def _of_sequential_test(standings: Sequence[Standing], separation: Separation) -> str:
    best, n = _with_rate(standings[separation.best]), standings[0].success.n
    evidence = f"e-value {separation.e_value:.3g}, {separation.needed:.3g} is needed"
    if separation.decided:
        return f"Clear winner after {n} episodes each: {best} is better than every other checkpoint ({evidence})."
    return f"No clear winner after {n} episodes each: {best} has the strongest evidence ({evidence})."


def _of_unbeaten(standings: Sequence[Standing], pairs: Sequence[Pair], best: int) -> str:
    """The verdict if no other checkpoint is shown to be better than the one with index `best`."""
    name, own = _with_rate(standings[best]), [pair for pair in pairs if best in (pair.first, pair.second)]
    others = [pair.second if pair.first == best else pair.first for pair in own if pair.better is None]
    if others:
        tied = _names([standings[i] for i in others])
        return f"No clear winner: no checkpoint is shown to be better than {name}, but it is tied with {tied}."
    p_text = _p_text([pair.adjusted for pair in own], "at most")
    return f"Clear winner: {name} is better than every other checkpoint ({p_text})."


def _with_rate(standing: Standing) -> str:
    return f"{standing.label} ({100 * standing.success.rate:.0f} %)"


def _names(standings: Sequence[Standing]) -> str:
    """``a (92 %), b (90 %) and c (88 %)``; of more than `MOST_NAMES` checkpoints the rest is only counted."""
    names = [_with_rate(standing) for standing in standings[:MOST_NAMES]]
    if len(standings) > MOST_NAMES:
        names.append(f"{len(standings) - MOST_NAMES} more")
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _p_text(p_values: Sequence[float], bound: Literal["at least", "at most"]) -> str:
    """``p = 0.21`` for one p-value; for several, their smallest ("at least") or largest ("at most")."""
    p_value = min(p_values) if bound == "at least" else max(p_values)
    if p_value < 0.001 and bound == "at most":
        return "p < 0.001"
    return f"p = {p_value:#.2g}" if len(p_values) == 1 else f"every p {bound} {p_value:#.2g}"
