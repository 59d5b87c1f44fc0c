"""How often every verdict of this project is wrong, and whether its power is what `plan` says.

    python benchmarks/verdicts.py               # checkpoints: some two minutes on one core
    python benchmarks/verdicts.py --retraining  # recipes that were trained several times

Simulated successes of two checkpoints with one true rate on common seeds; the outcomes of a seed have the correlation
phi. With a retraining sd, the true rates of the trainings scatter around the recipe's (a beta distribution). Columns of
the first table are the shares of simulations in which a verdict calls one of two better (`gate`: lets the one that was
evaluated first and alone replace the other):

    McNemar     exact, two-sided
    Holm of 4   some pair of four equal checkpoints, corrected by Holm
    e-process   `--until-decided`, looked at after every seed: called the best of two
    Boschloo    exact, two-sided, of episodes that are not paired
    Fisher      the same by Fisher's test
    gate        McNemar, one-sided, at the level of a first evaluation
    Newcombe    95 % intervals, paired and unpaired, that do not cover the difference 0

Each of these judges two checkpoints, not two recipes: with a retraining sd above 0 the checkpoints do differ, and a
verdict that says so is right about them. The shares there are how often one training of each makes a recipe look better
than its equal.
"""

from __future__ import annotations

import argparse
from functools import cache
from itertools import combinations, product

import numpy as np
from scipy.special import ndtr, stdtr

from mlflow_project.promotion.gate import level
from rlinf_isaac.stats.boschloo import boschloo
from rlinf_isaac.stats.boschloo import power as boschloo_power
from rlinf_isaac.stats.differences import independent_interval, paired_interval
from rlinf_isaac.stats.paired import PairedCounts, mcnemar
from rlinf_isaac.stats.power import Discordance, paired_episodes, paired_power, unpaired_episodes
from rlinf_isaac.stats.retraining import Arm, compare_arms
from rlinf_isaac.stats.sequential import ALPHA, log_e_value
from rlinf_isaac.stats.unpaired import fisher

NUMBERS, RATES, CORRELATIONS, SDS = (20, 50, 200), (0.1, 0.5, 0.9), (0.0, 0.5), (0.0, 0.05, 0.10)


def true_rates(rate: float, sd: float, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """True rates of trainings: beta with this mean and sd."""
    if not sd:
        return np.full(shape, rate)
    size = rate * (1 - rate) / sd**2 - 1
    return generator.beta(rate * size, (1 - rate) * size, shape)


def episodes(rates: np.ndarray, phi: float, n: int, generator: np.random.Generator) -> np.ndarray:
    """(K, simulations, n) outcomes of (K, simulations) rates. With probability sqrt(phi) a checkpoint takes the luck of
    the seed, else its own: for equal rates the correlation of two is phi exactly."""
    count, simulations = rates.shape
    shared = generator.random((1, simulations, n), dtype=np.float32)
    luck = generator.random((count, simulations, n), dtype=np.float32)
    if phi:
        luck = np.where(generator.random(luck.shape, dtype=np.float32) < phi**0.5, shared, luck)
    return luck < rates[..., None]


@cache
def mcnemar_p(wins: int, losses: int) -> float:
    """Two-sided."""
    return mcnemar(wins, losses)


@cache
def unpaired_p(a: int, b: int, n: int) -> tuple[float, float, bool]:
    """Boschloo's and Fisher's two-sided p-values, and whether Newcombe's interval covers 0."""
    low, high = independent_interval((a, n), (b, n))
    two_sided = min(1.0, 2 * min(fisher((a, n), (b, n)), fisher((b, n), (a, n))))
    return boschloo((a, n), (b, n)), two_sided, low <= 0 <= high


@cache
def covers_paired(both: int, wins: int, losses: int, n: int) -> bool:
    """Whether the paired interval covers 0."""
    low, high = paired_interval(PairedCounts(both, wins, losses, n - both - wins - losses))
    return low <= 0 <= high


def counts_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(simulations, 3) both, only first, only second."""
    return np.stack([(first & second).sum(-1), (first & ~second).sum(-1), (~first & second).sum(-1)], -1)


def shares(rate: float, n: int, phi: float, sd: float, simulations: int, generator: np.random.Generator) -> list[float]:
    """A row of the first table."""
    four = episodes(true_rates(rate, sd, (4, simulations), generator), phi, n, generator)
    p_of = {}
    for i, j in combinations(range(4), 2):
        table = counts_of(four[i], four[j])
        p_of[i, j] = np.array([mcnemar_p(w, lost) for _, w, lost in table.tolist()])
    pair = counts_of(four[0], four[1]).tolist()
    # Holm finds something exactly if the smallest p-value is at most alpha / 6.
    holm = np.min(list(p_of.values()), axis=0) <= ALPHA / 6
    wins, losses = (np.cumsum(x, axis=-1) for x in (four[0] & ~four[1], four[1] & ~four[0]))
    called = np.zeros(simulations, dtype=bool)
    table = e_values(n)
    for ahead, behind in ((wins, losses), (losses, wins)):
        called |= (table[ahead, behind] >= np.log(2 / ALPHA)).any(-1)
    apart = [unpaired_p(both + w, both + lost, n) for both, w, lost in pair]
    gate = np.array([mcnemar(w, lost, "greater") <= level(ALPHA, 1) for _, w, lost in pair])
    return [
        float(np.mean(each))
        for each in (
            p_of[0, 1] <= ALPHA,
            holm,
            called,
            np.array([p <= ALPHA for p, _, _ in apart]),
            np.array([p <= ALPHA for _, p, _ in apart]),
            gate,
            np.array([not covers_paired(*row, n) for row in pair]),
            np.array([not covers for _, _, covers in apart]),
        )
    ]


@cache
def e_values(n: int) -> np.ndarray:
    """(n + 1, n + 1) log e-values of so many wins and losses."""
    grid = np.arange(n + 1)
    return log_e_value(grid[:, None], grid[None, :])


def first_table(simulations: int, generator: np.random.Generator) -> None:
    """Prints the type-I errors of the verdicts on checkpoints; of episodes that are not paired only phi = 0 counts."""
    names = ("McNemar", "Holm of 4", "e-process", "Boschloo", "Fisher", "gate", "Newc.pair", "Newc.unp")
    print("rate   n   phi   sd  " + "".join(f"{name:>11}" for name in names))
    worst = dict.fromkeys(names, 0.0)
    for sd, n, rate, phi in product(SDS, NUMBERS, RATES, CORRELATIONS):
        row = shares(rate, n, phi, sd, simulations, generator)
        print(f"{rate:.1f}  {n:3}  {phi:.1f}  {100 * sd:4.0f}  " + "".join(f"{each:11.1%}" for each in row), flush=True)
        if not sd:
            worst = {name: max(worst[name], each) for name, each in zip(names, row, strict=True)}
    print("\nworst at sd 0: " + ", ".join(f"{name} {each:.1%}" for name, each in worst.items()))
    print(f"standard error of a share of {ALPHA:.0%}: {(ALPHA * (1 - ALPHA) / simulations) ** 0.5:.2%}")


def power_table(simulations: int, generator: np.random.Generator) -> None:
    """Prints the power at the numbers of episodes that `plan` names, as `plan` has it and simulated."""
    print("\nrates       phi    n  test       plan  simulated")
    largest = 0.0
    for p, q in ((0.95, 0.86), (0.9, 0.8), (0.9, 0.7), (0.6, 0.5), (0.3, 0.1)):
        for phi in CORRELATIONS:
            able = Discordance.of((p, q), phi)
            n = paired_episodes(able, ALPHA)
            assert n is not None
            table = generator.multinomial(n, [able.wins, able.losses, 1 - able.wins - able.losses], simulations)
            found = np.mean([mcnemar_p(w, lost) <= ALPHA for w, lost, _ in table.tolist()])
            told = paired_power(able, n, ALPHA)
            largest = max(largest, abs(found - told))
            print(f"{p:.2f}, {q:.2f}  {phi:.1f}  {n:4}  McNemar   {told:6.1%}  {found:6.1%}")
        n = unpaired_episodes((p, q), ALPHA)
        assert n is not None
        solved = generator.binomial(n, (p, q), (simulations, 2))
        found = np.mean([unpaired_p(a, b, n)[0] <= ALPHA for a, b in solved.tolist()])
        told = boschloo_power((p, q), (n, n), ALPHA)
        largest = max(largest, abs(found - told))
        print(f"{p:.2f}, {q:.2f}    -  {n:4}  Boschloo  {told:6.1%}  {found:6.1%}", flush=True)
    print(f"largest difference {100 * largest:.1f} points")


def welch(rates: np.ndarray, n: int) -> np.ndarray:
    """(simulations,) p-values of `compare_arms`, vectorised; (2, trainings, simulations) rates."""
    k = rates.shape[1]
    likely = (rates.sum(1) * n + 1) / (k * n + 2)
    u, v = np.maximum(rates.var(axis=1, ddof=1), likely * (1 - likely) / n) / k
    t = (rates[0].mean(0) - rates[1].mean(0)) / np.sqrt(u + v)
    return 2 * stdtr((u + v) ** 2 / ((u * u + v * v) / (k - 1)), -np.abs(t))


def permutation(rates: np.ndarray) -> np.ndarray:
    """(simulations,) p-values of permuting trainings between the recipes."""
    k = rates.shape[1]
    pool = rates.reshape(2 * k, -1)
    seen = np.abs(rates[0].sum(0) - rates[1].sum(0))
    splits = [np.array(chosen) for chosen in combinations(range(2 * k), k)]
    return np.mean([np.abs(2 * pool[s].sum(0) - pool.sum(0)) >= seen - 1e-9 for s in splits], axis=0)


def bootstrap(rates: np.ndarray, n: int, generator: np.random.Generator, times: int = 400) -> np.ndarray:
    """(simulations,) bool: the 95 % percentile interval over trainings and episodes does not cover 0."""
    _, k, simulations = rates.shape
    found = np.empty((times, simulations))
    for turn in range(times):
        picked = np.take_along_axis(rates, generator.integers(0, k, rates.shape), axis=1)
        means = generator.binomial(n, picked).mean(axis=1) / n
        found[turn] = means[0] - means[1]
    low, high = np.quantile(found, (ALPHA / 2, 1 - ALPHA / 2), axis=0)
    return (low > 0) | (high < 0)


def retraining_table(simulations: int, generator: np.random.Generator) -> None:
    """Prints the type-I errors of ways to compare two recipes."""
    names = ("Welch", "permuted", "bootstrap", "pooled")
    print("trainings  rate    n  phi   sd  " + "".join(f"{name:>10}" for name in names))
    worst = dict.fromkeys(names, 0.0)
    for k, sd, n, rate, phi in product((2, 3, 5), SDS, NUMBERS, RATES, CORRELATIONS):
        if sd > 0.09 and rate in (0.1, 0.9) and n == 20 and phi:
            continue  # like its neighbours
        true = true_rates(rate, sd, (2 * k, simulations), generator)
        solved = episodes(true, phi, n, generator).sum(-1).reshape(2, k, simulations)
        rates = solved / n
        p_pooled = pooled(solved, n)
        few = slice(0, min(simulations, 1000))  # the bootstrap is slow
        row = [
            (welch(rates, n) <= ALPHA).mean(),
            (permutation(rates) <= ALPHA).mean(),
            bootstrap(rates[..., few], n, generator, 200).mean() if not phi else float("nan"),
            (p_pooled <= ALPHA).mean(),
        ]
        print(f"{k:9}  {rate:.1f}  {n:3}  {phi:.1f} {100 * sd:4.0f}  " + "".join(f"{x:10.1%}" for x in row), flush=True)
        worst = {name: float(np.nanmax([worst[name], x])) for name, x in zip(names, row, strict=True)}
    print("\nworst: " + ", ".join(f"{name} {each:.1%}" for name, each in worst.items()))
    example = Arm.of([(45, 50), (42, 50), (47, 50)]), Arm.of([(38, 50), (41, 50), (36, 50)])
    own = np.array([[arm.rates] for arm in example]).transpose(0, 2, 1)
    assert abs(float(welch(own, 50)[0]) - (compare_arms(*example).p_value or 0)) < 1e-12  # the project's own test


def pooled(solved: np.ndarray, n: int) -> np.ndarray:
    """(simulations,) p-values of a z-test on all episodes of a recipe, as if of one checkpoint."""
    k = solved.shape[1]
    p, q = solved.sum(1) / (k * n)
    spread = np.sqrt(np.maximum((p + q) / 2 * (1 - (p + q) / 2) * 2 / (k * n), 1e-12))
    return 2 * ndtr(-np.abs(p - q) / spread)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--retraining", action="store_true", help="compare recipes, and not checkpoints")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    if options.retraining:
        retraining_table(options.simulations, generator)
    else:
        first_table(options.simulations, generator)
        power_table(5 * options.simulations, generator)


if __name__ == "__main__":
    main()
