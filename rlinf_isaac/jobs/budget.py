"""What the budget of an evaluation until decided can show, before it begins."""

from __future__ import annotations

BASELINE, CORRELATION, DIFFERENCES = 0.8, 0.3, (0.1, 0.2)
"""Supposed, as nothing is known yet: the better rate, phi on the same seed, by how much the other is worse."""


def budget_words(episodes: int, checkpoints: int, alpha: float) -> str:
    """With which probability `episodes` seeds or fewer show differences of 10 and of 20 points between two of so many
    checkpoints."""
    if checkpoints < 2:
        return "nothing, of a single checkpoint"
    from rlinf_isaac.stats.power import Discordance  # imports numpy
    from rlinf_isaac.stats.sequential_power import decided

    parts = []
    for difference in DIFFERENCES:
        discordance = Discordance.of((BASELINE, BASELINE - difference), CORRELATION)
        chance = decided(discordance, episodes, checkpoints, alpha)
        said = "over 99 %" if chance > 0.99 else "under 1 %" if chance < 0.01 else f"{100 * chance:.0f} %"
        parts.append(f"{100 * difference:.0f} points in {said}")
    return f"{' and '.join(parts)} of cases, supposing {100 * BASELINE:.0f} % success and correlation {CORRELATION:g}"
