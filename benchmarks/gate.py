"""How often the gate of `promote` is passed by luck, and what its caution costs.

    python benchmarks/gate.py

Simulated successes on common seeds (Gaussian copula, as in `benchmarks/sequential.py`). No checkpoint deserves to pass:
for `better` all equal the champion, for `not-worse` they are worse by exactly the margin, for `min-success` their rate
is exactly the demanded one. Everything that is evaluated is presented at once, by every name, until one passes:

    once              a sweep of so many checkpoints
    same seeds        a new sweep of new checkpoints on the same seeds, for every attempt
    fresh seeds       the same checkpoints on fresh seeds, for every attempt
    winner, fresh     a sweep, then its best checkpoint alone on fresh seeds, for every further attempt
    heirs             a sweep, then new checkpoints trained from the best so far, whose episodes end as its do on half
                      of the seeds, which are the same: the gate does not promise its bound where training
                      depended on the rows

K is counted by `mlflow_project.promotion.looks`, and `mlflow_project.promotion.gate` decides. Columns: K at the last
attempt; the share of simulations in which anything was promoted; for comparison, with tests at alpha / K of what was
there at each attempt, and at alpha. Every evaluation is also repeated on its seeds, alone: K is asserted to stay what
it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from scipy.stats import norm

from mlflow_project.promotion.gate import Champion, Demands, Evidence, judge, level
from mlflow_project.promotion.looks import Look, family_of
from rlinf_isaac.stats.sequential import ALPHA

MARGIN = 0.1
# Rule -> (rate of the champion, rate of the candidates, what is asked).
RULES = {
    "better": (0.7, 0.7, Demands(0.0)),
    "not-worse": (0.8, 0.8 - MARGIN, Demands(0.0, "not-worse", MARGIN)),
    "min-success": (None, 0.5, Demands(0.5)),
}
REPEATED = ("same seeds", "fresh seeds", "winner, fresh", "heirs")
ATTEMPTS = (5, 10)
CORRELATION = 0.3
"""Of the latent difficulty of a seed, as in `benchmarks/sequential.py`."""

Levels = Callable[[int, int], float]
"""From K and how much of it the newest sweep makes."""
LEVELS: dict[str, Levels] = {
    "gate": lambda k, newest: level(ALPHA, k, newest),
    "alpha / K": lambda k, newest: ALPHA / k,
    "alpha": lambda k, newest: ALPHA,
}


@cache
def wins_needed(rule: str, n: int, asked: float) -> np.ndarray:
    """(n + 1,) seeds that must be won for the gate to let a candidate pass that loses 0, 1, ... at this level."""
    needed, wins = np.full(n + 1, n + 1), 0
    for losses in range(n + 1):
        while wins + losses <= n and not passes(rule, n, wins, losses, asked):
            wins += 1
        if wins + losses > n or rule == "min-success":
            needed[losses] = wins
            break
        needed[losses] = wins
    return needed


def passes(rule: str, n: int, wins: int, losses: int, asked: float) -> bool:
    """Whether the gate lets a candidate pass that wins and loses so many seeds; without a champion, that solves so
    many."""
    demands = RULES[rule][2]
    demands = replace(demands, alpha=asked / level(1, 1))  # which the gate puts back, for a first evaluation
    mine = dict(enumerate([True] * wins + [False] * (n - wins)))
    theirs = dict(enumerate([False] * wins + [True] * losses + [False] * (n - wins - losses)))
    champion = None if rule == "min-success" else Champion("1", theirs)
    evidence = Evidence(1, (), 1, (), (), (), 1, (), mine, 1, champion=champion)
    return all(ruling.passed for ruling in judge(evidence, demands))


def decide(rule: str, outcomes: np.ndarray, champion: np.ndarray | None, asked: float) -> np.ndarray:
    """(simulations,) bool: does any checkpoint pass? Of (checkpoints, simulations, n) and (simulations, n)."""
    wins = (outcomes if champion is None else outcomes & ~champion).sum(-1)
    losses = np.zeros_like(wins) if champion is None else (~outcomes & champion).sum(-1)
    return (wins >= wins_needed(rule, outcomes.shape[-1], asked)[losses]).any(axis=0)


class World:
    """Episodes of checkpoints that are all alike, and of the champion.

    Args:
        rates: of the champion (None: there is none), and of the checkpoints.
    """

    def __init__(self, rates: tuple[float | None, float], simulations: int, n: int, generator) -> None:
        self._champion_rate, self._rate = rates
        self._shape, self._generator = (simulations, n), generator
        self.reseed()

    def reseed(self) -> None:
        """Go on to fresh seeds: their difficulty, and the champion's episodes."""
        self._shared = self._normal(*self._shape)
        self.champion = (
            None if self._champion_rate is None else self._play(self._normal(*self._shape), self._champion_rate)
        )

    def checkpoints(self, number: int, like: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """What is a checkpoint's own on these seeds, and its outcomes; `like` another one's own on half of them."""
        own = self._normal(number, *self._shape)
        if like is not None:
            own = np.where(self._generator.random(own.shape, dtype=np.float32) < 0.5, like, own)
        return own, self._play(own, self._rate)

    def _play(self, own: np.ndarray, rate: float) -> np.ndarray:
        return np.sqrt(CORRELATION) * self._shared + np.sqrt(1 - CORRELATION) * own < norm.ppf(rate)

    def _normal(self, *shape: int) -> np.ndarray:
        return self._generator.standard_normal(shape, dtype=np.float32)


def counts(kind: str, best_of: int, attempts: int) -> list[tuple[int, int]]:
    """K at every attempt, and how much of it the newest sweep makes, as `family_of` counts; the same for every
    checkpoint, also when each was evaluated again, alone."""
    looks: list[Look] = []
    found = []
    for attempt in range(attempts):
        seeds = range(100 * attempt, 100 * attempt + 50) if "fresh" in kind else range(50)
        alone, new = kind == "winner, fresh" and attempt > 0, kind in ("same seeds", "heirs")
        names = [f"{attempt if new else 0}/{number}" for number in range(1 if alone else best_of)]
        for name in names:
            time = len(looks)
            looks.append(Look(name, seeds, (float(time),), time, f"{time}", f"sweep {attempt}", len(names)))
        again = [
            replace(each, time_ms=1000 + each.time_ms, run=f"{each.run} again", sweep=f"{each.run} again", planned=1)
            for each in looks
        ]
        parents = [f"{attempt - 1}/0"] if kind == "heirs" and attempt else []
        families = [family_of(name, listed, ancestors=parents) for name in names for listed in (looks, looks + again)]
        by_name = {(family.size, family.newest_sweep) for family in families}
        assert len(by_name) == 1, by_name
        found += by_name
    return found


def promoted(
    ways: Sequence[str], rule: str, kind: str, best_of: int, n: int, simulations: int, generator
) -> dict[str, np.ndarray]:
    """Way of choosing the level -> (attempts,) share of the simulations in which anything was promoted until then."""
    world = World(RULES[rule][:2], simulations, n, generator)
    ever = {name: np.zeros((max(ATTEMPTS), simulations), dtype=bool) for name in ways}
    own, best = None, None
    for attempt, count in enumerate(counts(kind, best_of, max(ATTEMPTS))):
        if attempt and "fresh" in kind:
            world.reseed()
        alone = attempt and kind == "winner, fresh"
        own, outcomes = world.checkpoints(1 if alone else best_of, best if kind == "heirs" else None)
        best = np.take_along_axis(own, outcomes.sum(-1).argmax(0)[None, :, None], 0)[0]
        for name in ways:
            ever[name][attempt] = decide(rule, outcomes, world.champion, LEVELS[name](*count))
    return {name: np.logical_or.accumulate(each, axis=0).mean(axis=1) for name, each in ever.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--best-of", type=int, nargs="+", default=[1, 3, 6, 10])
    parser.add_argument("--episodes", type=int, nargs="+", default=[50, 100, 200])
    options = parser.parse_args()
    generator, compared = np.random.default_rng(0), options.episodes[len(options.episodes) // 2]
    cells = [("gate", n) for n in options.episodes] + [(way, compared) for way in LEVELS if way != "gate"]
    print("                                     " + "  ".join(f"{way:>9}" for way, _ in cells))
    print("rule         attempts          of    K" + "  ".join(f"{f'n={n}':>9}" for _, n in cells))
    worst: dict[str, float] = {}
    for rule in RULES:
        for best_of in options.best_of:
            for kind in REPEATED:
                shares = {}
                for n in options.episodes:
                    ways = [way for way, of in cells if of == n]
                    found = promoted(ways, rule, kind, best_of, n, options.simulations, generator)
                    shares |= {(way, n): share for way, share in found.items()}
                for attempts in (1, *ATTEMPTS) if kind == REPEATED[0] else ATTEMPTS:
                    name = "once" if attempts == 1 else f"{attempts} {kind}"
                    k = counts(kind, best_of, attempts)[-1][0]
                    line = "  ".join(f"{shares[cell][attempts - 1]:9.1%}" for cell in cells)
                    print(f"{rule:11}  {name:16}  {best_of:2}  {k:3}{line}", flush=True)
                gate = max(shares["gate", n][-1] for n in options.episodes)
                worst[kind] = max(worst.get(kind, 0.0), gate)
    error = (ALPHA * (1 - ALPHA) / options.simulations) ** 0.5
    print(f"\nworst of the gate: {', '.join(f'{kind} {share:.1%}' for kind, share in worst.items())}")
    print(f"allowed: {ALPHA:.0%}; standard error of a share of {ALPHA:.0%}: {error:.2%}\n")
    print_cost(options, generator)


def print_cost(options: argparse.Namespace, generator) -> None:
    """How often a checkpoint with 90 % is called better than a champion with 70 %, in the first sweep of so many and,
    by the gate, as the last of so many single attempts."""
    ways: dict[str, Levels] = {name: LEVELS[name] for name in ("gate", "alpha / K")}
    ways["gate, last"] = lambda k, _: level(ALPHA, k)
    print("power: 90 % against a champion with 70 %")
    print("     " + "  ".join(f"{way:>10}" for _ in options.episodes for way in ways))
    print(" of  " + "  ".join(f"{f'n={n}':>10}" for n in options.episodes for _ in ways))
    for best_of in options.best_of:
        cells = []
        for n in options.episodes:
            world = World((0.7, 0.9), options.simulations, n, generator)
            outcomes = world.checkpoints(1)[1]
            for asked in ways.values():
                cells.append(decide("better", outcomes, world.champion, asked(best_of, best_of)).mean())
        print(f"{best_of:3}  " + "  ".join(f"{cell:10.1%}" for cell in cells))


if __name__ == "__main__":
    main()
