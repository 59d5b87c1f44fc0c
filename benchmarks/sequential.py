"""How many episodes `eval --until-decided` needs, against a number of episodes that is fixed in advance.

    python benchmarks/sequential.py

Simulated successes of K checkpoints on common seeds: the first has one rate, the others have another. A seed is hard
or easy for all of them (Gaussian copula), so that the pairs correlate as those of real sweeps do. Columns:

    fixed n      smallest number of seeds for which exact McNemar tests (Bonferroni over all pairs) find the first
                 better than each of the others in 80 % of the simulations
    mean n       seeds until `separate` decides, or the budget ends; looked at after each batch
    decided      share of the simulations in which the first is called the best
    wrong        share in which another one is, or where all are equal any
    peeking      share of wrong calls when McNemar's p-value is looked at after each batch instead
"""

from __future__ import annotations

import argparse
from itertools import combinations

import numpy as np
from scipy.stats import binom, norm

from rlinf_isaac.stats.sequential import ALPHA, log_e_value

RATES = [(0.90, 0.50), (0.90, 0.70), (0.70, 0.55), (0.90, 0.80), (0.90, 0.90), (0.50, 0.50)]


def successes(rates: list[float], correlation: float, simulations: int, seeds: int, generator) -> np.ndarray:
    """(K, simulations, seeds) bool."""
    shared = generator.standard_normal((simulations, seeds))
    own = generator.standard_normal((len(rates), simulations, seeds))
    latent = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    return latent < norm.ppf(rates)[:, None, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--correlation", type=float, default=0.3, help="of the latent difficulty, not phi")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    print("K  best  rest   phi  fixed n  mean n  decided  wrong  peeking")
    for count in (2, 4):
        for best, rest in RATES:
            rates = [best] + [rest] * (count - 1)
            outcomes = successes(rates, options.correlation, options.simulations, options.budget, generator)
            print(line(outcomes, best > rest, options.batch))


def line(outcomes: np.ndarray, differ: bool, batch: int) -> str:
    """One row of the table."""
    count, _, budget = outcomes.shape
    wins = {
        (i, j): np.cumsum(outcomes[i] & ~outcomes[j], axis=-1) for i in range(count) for j in range(count) if i != j
    }
    looks = np.arange(batch, budget + 1, batch) - 1

    # The capital of each against the one it does worst against, as `separate` sees it at every look.
    capital = np.stack(
        [
            np.min(
                [np.maximum.accumulate(log_e_value(wins[i, j], wins[j, i]), -1) for j in range(count) if j != i], axis=0
            )
            for i in range(count)
        ]
    )[..., looks]
    reached = capital >= np.log(count / ALPHA)
    ever = reached.any(axis=(0, 2))
    first_look = np.where(ever, reached.any(axis=0).argmax(axis=-1), len(looks) - 1)
    called = np.array([reached[:, s, look].argmax() if ever[s] else -1 for s, look in enumerate(first_look)])
    mean_n = (looks[first_look] + 1).mean()

    pairs = count * (count - 1) // 2
    p_values = {
        (i, j): np.minimum(1, 2 * binom.sf(np.maximum(wins[i, j], wins[j, i]) - 1, wins[i, j] + wins[j, i], 0.5))
        for i, j in combinations(range(count), 2)
    }
    beats = [(p_values[0, j] <= ALPHA / pairs) & (wins[0, j] > wins[j, 0]) for j in range(1, count)]
    power = np.all(beats, axis=0).mean(axis=0)
    enough = np.flatnonzero(power >= 0.8)
    fixed = f"{enough[0] + 1:7d}" if differ and len(enough) else "      -" if not differ else f"  > {budget}"
    peeked = np.zeros(outcomes.shape[1], dtype=bool)
    for i in range(0 if not differ else 1, count):
        better = [
            (p_values[min(i, j), max(i, j)][..., looks] <= ALPHA / pairs) & (wins[i, j] > wins[j, i])[..., looks]
            for j in range(count)
            if j != i
        ]
        peeked |= np.all(better, axis=0).any(axis=-1)
    wrong = (called > 0).mean() if differ else (called >= 0).mean()
    decided = f"{(called == 0).mean():7.1%}" if differ else "      -"
    phi = np.corrcoef(outcomes[0].ravel(), outcomes[1].ravel())[0, 1]
    rates = "  ".join(f"{outcomes[i].mean():.2f}" for i in (0, 1))
    return f"{count}  {rates}  {phi:.2f}  {fixed}  {mean_n:6.0f}  {decided}  {wrong:5.1%}  {peeked.mean():7.1%}"


if __name__ == "__main__":
    main()
