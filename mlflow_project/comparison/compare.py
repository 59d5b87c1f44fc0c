"""Checkpoints compared: who is better than whom, by how much, and what the data cannot tell apart.

Episodes on the same seeds are compared pair by pair; checkpoints of sweeps that differ in more than the checkpoint are
compared by their rates alone, and it is said why. All pairs are one family: p-values are adjusted by Holm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from mlflow_project.comparison.evaluations import Evaluation
from mlflow_project.vocabulary import MISMATCH_TAG
from rlinf_isaac.stats.paired import PairedCounts, holm
from rlinf_isaac.stats.rates import RateEstimate
from rlinf_isaac.stats.sequential import ALPHA, Separation, anytime_p_value, separate

MCNEMAR = "exact McNemar"
ANYTIME = "e-process"
FISHER = "Fisher, unpaired"

SOLVED_BY, DISAGREE = "solved by", "disagree"
"""Columns of `tables.episode_tables` beside the seed and one per checkpoint."""

# What a seed means, and what is asked of the policy. The checkpoint's own side (weights, norm stats, state layout) may
# differ: it is what is compared.
_ENVIRONMENT = ("task", "backend", "assets", "prompt", "renderer", "image_size", "control_hz", "max_episode_steps")
_SETTINGS = ("action_chunk", "policy_seed")


RANK_NOTE = "A rank such as 1-3 says that each of these places is possible: the order within is not shown by the data."


@dataclass(frozen=True)
class Standing:
    """One checkpoint in the comparison.

    Attributes:
        label: short name, unique in the comparison.
        success: rate with its 95 % Wilson interval.
        drops, timeouts: numbers of episodes that ended so.
        episode_return, length: means.
        rank: best and worst place that the tests leave possible, counted from 1.
    """

    evaluation: Evaluation
    label: str
    success: RateEstimate
    drops: int
    timeouts: int
    episode_return: float
    length: float
    rank: tuple[int, int]

    @property
    def place(self) -> str:
        """``1``, or ``1-3`` where it cannot be told apart from others."""
        low, high = self.rank
        return str(low) if low == high else f"{low}-{high}"


@dataclass(frozen=True)
class Pair:
    """Two checkpoints of a comparison, by their index there.

    Attributes:
        counts: over the seeds both have; None when they are not paired.
        unpaired: why not, or None.
        test: `MCNEMAR`, `ANYTIME` (the number of episodes depended on the outcomes) or `FISHER`; all two-sided.
        p_value: of this pair alone.
        adjusted: by Holm over all pairs.
        better: index of the better one where `adjusted` <= alpha, else None.
    """

    first: int
    second: int
    counts: PairedCounts | None
    unpaired: str | None
    test: str
    p_value: float
    adjusted: float
    better: int | None


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        standings: by success rate, the highest first. That order alone says nothing: see `Standing.rank`.
        pairs: all of them.
        groups: indices of `standings` whose episodes are paired with each other.
        separation: the decision of one sweep that was evaluated until decided, else None.
        alpha: error rate of all statements together.
    """

    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    groups: tuple[tuple[int, ...], ...]
    separation: Separation | None
    alpha: float = ALPHA

    @property
    def top(self) -> tuple[Standing, ...]:
        """Those that no other checkpoint is shown to be better than."""
        return tuple(each for each in self.standings if each.rank[0] == 1)

    @property
    def unpaired_reasons(self) -> tuple[str, ...]:
        """Why some are not paired; empty when all are."""
        return tuple(dict.fromkeys(pair.unpaired for pair in self.pairs if pair.unpaired))

    @property
    def ties(self) -> bool:
        """Whether the order of some is not shown by the data."""
        return any(low != high for low, high in (each.rank for each in self.standings))

    @property
    def verdict(self) -> str:
        """One sentence: which is the best, or that the data do not say."""
        if len(self.standings) == 1:
            return "One checkpoint; nothing to compare it with."
        if self.separation is not None:
            best, n = self.standings[self.separation.best], self.standings[0].success.n
            evidence = f"e-value {self.separation.e_value:.3g}, {self.separation.needed:.3g} decides"
            if self.separation.decided:
                return f"Decided after {n} episodes each: {best.label} is better than every other ({evidence})."
            return f"Not decided within {n} episodes each: {best.label} comes nearest ({evidence})."
        if len(self.top) == 1:
            return f"{self.top[0].label} is better than every other checkpoint."
        names = [each.label for each in self.top[:8]] + [f"{len(self.top) - 8} more"] * (len(self.top) > 8)
        return f"The best cannot be told: {', '.join(names)} are not separable."

    @property
    def method(self) -> str:
        """How the p-values were obtained and corrected."""
        tests = sorted({pair.test for pair in self.pairs})
        names = {
            MCNEMAR: "exact McNemar test on the seeds that only one of two solves",
            ANYTIME: "anytime-valid p-values of an e-process, since the outcomes decided when to stop",
            FISHER: "Fisher's exact test for those that are not paired",
        }
        count = f"{len(self.pairs)} pair{'s' if len(self.pairs) != 1 else ''}"
        how = "; ".join(names[test] for test in tests)
        return f"{how}; two-sided, corrected by Holm over {count} (family-wise error rate {100 * self.alpha:g} %)"


def compare(evaluations: Sequence[Evaluation], alpha: float = ALPHA) -> Comparison:
    """Compare at least one evaluation with each other; a checkpoint that was evaluated twice alike counts once."""
    ordered = sorted(_without_repetitions(evaluations), key=lambda each: (-_rate(each), each.step, each.sweep_name))
    tested = [(i, j, *_test(ordered[i], ordered[j])) for i, j in combinations(range(len(ordered)), 2)]
    pairs = []
    for (i, j, counts, reason, test, p_value), adjusted in zip(
        tested, holm([each[-1] for each in tested]), strict=True
    ):
        ahead = counts.wins - counts.losses if counts else _rate(ordered[i]) - _rate(ordered[j])
        better = None if adjusted > alpha or ahead == 0 else i if ahead > 0 else j
        pairs.append(Pair(i, j, counts, reason, test, p_value, adjusted, better))
    separation = None
    if len(ordered) > 1 and len({each.sweep for each in ordered}) == 1 and ordered[0].stopped_by_rule:
        separation = separate([each.successes for each in ordered], ordered[0].settings["stop_rule"]["alpha"])
    labels = _labels(ordered)
    standings = tuple(_standing(each, labels[i], _rank(i, pairs, len(ordered))) for i, each in enumerate(ordered))
    return Comparison(standings, tuple(pairs), _groups(ordered), separation, alpha)


def pairing_problem(first: Evaluation, second: Evaluation) -> str | None:
    """Why the episodes of two evaluations are not paired; None when they are."""
    if first.sweep == second.sweep:
        return None
    first, second = sorted((first, second), key=lambda each: (each.sweep_name, each.sweep))  # one text for both orders
    names = f"{first.sweep_name} and {second.sweep_name}"
    if not first.settings or not second.settings:
        return f"{names}: the settings of one of them were not recorded"
    differing = [
        f"{name.replace('_', ' ')} ({_short(mine)} against {_short(theirs)})"
        for name, mine, theirs in _what_must_agree(first.settings, second.settings)
        if mine != theirs
    ]
    seeds, others = set(first.successes), set(second.successes)
    if not (seeds <= others or others <= seeds):
        differing.append(f"seeds ({min(seeds)} to {max(seeds)} against {min(others)} to {max(others)})")
    return f"{names} differ in {', '.join(differing)}" if differing else None


def _test(first: Evaluation, second: Evaluation) -> tuple[PairedCounts | None, str | None, str, float]:
    """Counts where paired, the reason where not, the test and its p-value."""
    reason = pairing_problem(first, second)
    if reason is not None:
        from scipy.stats import fisher_exact  # 1 s, which the usual comparison does not need

        solved = [sum(each.successes.values()) for each in (first, second)]
        failed = [len(each.rows) - n for each, n in zip((first, second), solved, strict=True)]
        return None, reason, FISHER, float(fisher_exact([solved, failed]).pvalue)
    counts = PairedCounts.of(first.successes, second.successes)
    if first.stopped_by_rule or second.stopped_by_rule:
        return counts, None, ANYTIME, anytime_p_value(first.successes, second.successes)
    return counts, None, MCNEMAR, counts.p_value()


def _what_must_agree(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    environments = first.get("environment", {}), second.get("environment", {})
    return [
        *((name, environments[0].get(name), environments[1].get(name)) for name in _ENVIRONMENT),
        *((name, first.get(name), second.get(name)) for name in _SETTINGS),
    ]


def _without_repetitions(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The same checkpoint with the same seeds and settings gives the same rows: the first one is kept, beside the
    others of its sweep."""
    kept: list[Evaluation] = []
    for each in evaluations:
        if not any(
            other.checkpoint == each.checkpoint
            and other.successes.keys() == each.successes.keys()
            and other.settings == each.settings
            and not pairing_problem(other, each)
            for other in kept
        ):
            kept.append(each)
    return kept


def _groups(ordered: Sequence[Evaluation]) -> tuple[tuple[int, ...], ...]:
    groups: list[list[int]] = []
    for i, each in enumerate(ordered):
        for group in groups:
            if all(pairing_problem(ordered[member], each) is None for member in group):
                group.append(i)
                break
        else:
            groups.append([i])
    return tuple(map(tuple, groups))


def _rank(index: int, pairs: Sequence[Pair], n: int) -> tuple[int, int]:
    mine = [pair.better for pair in pairs if index in (pair.first, pair.second)]
    beaten = sum(better == index for better in mine)
    beaten_by = sum(better is not None and better != index for better in mine)
    return 1 + beaten_by, n - beaten


def _labels(ordered: Sequence[Evaluation]) -> list[str]:
    """Run names; with the sweep's where they are not unique, and with the run's id where that is not unique either."""
    plain = [each.name for each in ordered]
    names = [
        name if plain.count(name) == 1 else f"{each.sweep_name} / {name}"
        for name, each in zip(plain, ordered, strict=True)
    ]
    return [
        name if names.count(name) == 1 and name not in ("seed", SOLVED_BY, DISAGREE) else f"{name} ({each.run})"
        for name, each in zip(names, ordered, strict=True)
    ]


def _standing(evaluation: Evaluation, label: str, rank: tuple[int, int]) -> Standing:
    rows = evaluation.rows
    return Standing(
        evaluation=evaluation,
        label=label + (" (mismatch allowed)" if evaluation.tags.get(MISMATCH_TAG) == "true" else ""),
        success=RateEstimate.of(sum(row.success for row in rows), len(rows)),
        drops=sum(row.outcome == "drop" for row in rows),
        timeouts=sum(row.outcome == "timeout" for row in rows),
        episode_return=fmean(row.episode_return for row in rows),
        length=fmean(row.length for row in rows),
        rank=rank,
    )


def _rate(evaluation: Evaluation) -> float:
    return sum(row.success for row in evaluation.rows) / len(evaluation.rows)


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)
