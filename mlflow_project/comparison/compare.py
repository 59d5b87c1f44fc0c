"""Compares checkpoints: which one is better, by how much, and which ones the data cannot tell apart.

Episodes on the same seeds are compared seed by seed. If two sweeps differ in more than the checkpoint, only the success
rates are compared, and the comparison gives the reason. The p-values of all pairs are adjusted by Holm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from statistics import fmean
from typing import Any

from mlflow_project.comparison.arms import NamedArm
from mlflow_project.comparison.by_task import TaskPair, pairs_by_task, tasks_in
from mlflow_project.comparison.episodes import TIMEOUT, extra_means, solved, unsolved
from mlflow_project.comparison.evaluations import Evaluation
from mlflow_project.comparison.foreign import foreign_problem
from mlflow_project.comparison.standings import Pair, Standing
from mlflow_project.comparison.verdict import verdict
from mlflow_project.vocabulary import MISMATCH_TAG
from rlinf_isaac.stats.paired import PairedCounts, holm
from rlinf_isaac.stats.sequential import ALPHA, Separation, anytime_p_value, separate

MCNEMAR = "exact McNemar"
ANYTIME = "e-process"  # if the outcomes decided the number of episodes (`--until-decided`)
BOSCHLOO = "Boschloo, unpaired"
FISHER = "Fisher, unpaired"  # of more episodes than Boschloo's test is made for

SOLVED_BY, DISAGREE = "solved by", "disagree"
"""Columns of `tables.episode_tables` in addition to the seed and one column per checkpoint."""

# Settings that must agree for episodes to be paired: they decide what a seed means and what the policy has to do. What
# belongs to the checkpoint (weights, norm stats, state layout) may differ, because that is what is compared.
_ENVIRONMENT = ("task", "backend", "assets", "prompt", "renderer", "image_size", "control_hz", "max_episode_steps")
_SETTINGS = ("action_chunk", "policy_seed", "vary")


RANK_NOTE = "A rank such as 1-3 means that the data do not show which of these places the checkpoint has."


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`.

    Attributes:
        standings: checkpoints by success rate, the highest first. The order alone is not significant; `Standing.rank`
            says what the tests show.
        pairs: every pair of checkpoints.
        groups: groups of indices of `standings`; the episodes within a group are paired.
        separation: the decision, if the comparison is one sweep that was evaluated until decided, else None.
        alpha: family-wise error rate over all pairs.
        arms: recipes with their trainings, where these were named.
    """

    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    groups: tuple[tuple[int, ...], ...]
    separation: Separation | None
    alpha: float = ALPHA
    arms: tuple[NamedArm, ...] = ()

    @property
    def top(self) -> tuple[Standing, ...]:
        """The checkpoints than which no other is shown to be better."""
        return tuple(standing for standing in self.standings if standing.rank[0] == 1)

    @property
    def unpaired_reasons(self) -> tuple[str, ...]:
        """The reasons why pairs of checkpoints are not paired, each once; empty if all are paired."""
        return tuple(dict.fromkeys(pair.unpaired for pair in self.pairs if pair.unpaired))

    @property
    def outcomes(self) -> tuple[str, ...]:
        """How episodes ended that were not solved, time-outs last."""
        found = dict.fromkeys(name for standing in self.standings for name in standing.outcomes)
        return (*(name for name in found if name != TIMEOUT), *([TIMEOUT] if TIMEOUT in found else []))

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of the numbers that an environment gives for each episode."""
        return tuple(dict.fromkeys(name for standing in self.standings for name in standing.extras))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of checkpoints of several; empty if each is of a single task."""
        return tasks_in(self.standings)

    @cached_property
    def task_pairs(self) -> tuple[TaskPair, ...]:
        """Every pair of checkpoints in every task."""
        return pairs_by_task(self.standings, self.pairs, self.alpha)

    @property
    def success_title(self) -> str:
        """What the success rates are, and what their intervals: for the heading of a table."""
        return f"macro average over {len(self.tasks)} tasks" if self.tasks else "success"

    @property
    def interval_title(self) -> str:
        """The name of the intervals, for the heading of a table."""
        return "95 % interval" if self.tasks else "95 % Wilson"

    @property
    def ties(self) -> bool:
        """Whether some checkpoint has several possible places."""
        return any(low != high for low, high in (standing.rank for standing in self.standings))

    @property
    def verdict(self) -> str:
        """One sentence that names the clear winner, or says which checkpoints are tied (`verdict.verdict`)."""
        return verdict(self.standings, self.pairs, self.separation)

    @property
    def method(self) -> str:
        """How the p-values were computed and corrected."""
        tests = sorted({pair.test for pair in self.pairs})
        names = {
            MCNEMAR: "exact McNemar test on the seeds that only one of two solves",
            ANYTIME: "anytime-valid p-values of an e-process, because the outcomes decided when to stop",
            BOSCHLOO: "Boschloo's exact test for checkpoints that are not paired",
            FISHER: "Fisher's exact test for checkpoints that are not paired and have more than 1,000 episodes",
        }
        count = f"{len(self.pairs)} pair{'s' if len(self.pairs) != 1 else ''}"
        how = "; ".join(names[test] for test in tests)
        return f"{how}; two-sided, corrected by Holm over {count} (family-wise error rate {100 * self.alpha:g} %)"


def compare(evaluations: Sequence[Evaluation], alpha: float = ALPHA) -> Comparison:
    """Compare one or more evaluations. A checkpoint that was evaluated twice with the same settings counts once."""
    ordered = sorted(_without_repetitions(evaluations), key=lambda one: (-one.success.rate, one.step, one.sweep_name))
    tested = [(i, j, *_test(ordered[i], ordered[j])) for i, j in combinations(range(len(ordered)), 2)]
    pairs = []
    for (i, j, counts, reason, test, p_value), adjusted in zip(tested, holm([row[-1] for row in tested]), strict=True):
        ahead = counts.wins - counts.losses if counts else ordered[i].success.rate - ordered[j].success.rate
        better = None if adjusted > alpha or ahead == 0 else i if ahead > 0 else j
        pairs.append(Pair(i, j, counts, reason, test, p_value, adjusted, better))
    separation = None
    if len(ordered) > 1 and len({one.sweep for one in ordered}) == 1 and ordered[0].stopped_by_rule:
        separation = separate([one.successes for one in ordered], ordered[0].settings["stop_rule"]["alpha"])
    labels = _labels(ordered)
    standings = tuple(_standing(one, labels[i], _rank(i, pairs, len(ordered))) for i, one in enumerate(ordered))
    return Comparison(standings, tuple(pairs), _groups(ordered), separation, alpha)


def pairing_problem(first: Evaluation, second: Evaluation) -> str | None:
    """Why the episodes of two evaluations cannot be paired; None if they can."""
    if foreign := foreign_problem(first, second):
        return foreign
    if unseeded := sorted({*_unseeded(first), *_unseeded(second)}):
        return f"the environment of {', '.join(unseeded)} takes no seed for an episode"
    if first.sweep == second.sweep:
        return None
    first, second = sorted(
        (first, second), key=lambda one: (one.sweep_name, one.sweep)
    )  # the same text for both orders
    names = f"{first.sweep_name} and {second.sweep_name}"
    if not first.settings or not second.settings:
        return f"{names}: the settings of one of them were not recorded"
    differing = [
        f"{name.replace('_', ' ')} ({_short(mine)} against {_short(theirs)}){where}"
        for where, settings, others_settings in _settings_by_task(first, second)
        for name, mine, theirs in _what_must_agree(settings, others_settings)
        if mine != theirs
    ]
    if bool(first.tasks) != bool(second.tasks):
        words = [", ".join(each.tasks) or "one" for each in (first, second)]
        return f"{names} differ in their tasks ({words[0]} against {words[1]})"
    seeds, others = set(first.successes), set(second.successes)
    if not (seeds <= others or others <= seeds):
        differing.append(f"seeds ({min(seeds)} to {max(seeds)} against {min(others)} to {max(others)})")
    return f"{names} differ in {', '.join(differing)}" if differing else None


def _test(first: Evaluation, second: Evaluation) -> tuple[PairedCounts | None, str | None, str, float]:
    """Counts of the paired outcomes (or None), the reason if not paired (or None), the test, and its p-value."""
    reason = pairing_problem(first, second)
    if reason is not None:
        return None, reason, *_independent(solved(first.rows), solved(second.rows))
    counts = PairedCounts.of(first.successes, second.successes)
    if first.stopped_by_rule or second.stopped_by_rule:
        return counts, None, ANYTIME, anytime_p_value(first.successes, second.successes)
    return counts, None, MCNEMAR, counts.p_value()


def _independent(first: tuple[int, int], second: tuple[int, int]) -> tuple[str, float]:
    """The test and its p-value for (successes, episodes) of two checkpoints whose episodes are not paired."""
    from rlinf_isaac.stats import boschloo  # takes 0.3 s with scipy, and most comparisons do not need it

    (a, n), (b, m) = first, second
    if max(n, m) <= boschloo.LIMIT:
        return BOSCHLOO, boschloo.boschloo(first, second)
    from scipy.stats import fisher_exact

    return FISHER, float(fisher_exact([[a, b], [n - a, m - b]]).pvalue)


def _what_must_agree(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    environments = first.get("environment", {}), second.get("environment", {})
    return [
        *((name, environments[0].get(name), environments[1].get(name)) for name in _ENVIRONMENT),
        *((name, first.get(name), second.get(name)) for name in _SETTINGS),
    ]


def _unseeded(evaluation: Evaluation) -> list[str]:
    """The tasks whose environment does not start an episode by its seed."""
    several = evaluation.settings.get("tasks", {"": evaluation.settings})
    environments = [settings.get("environment", {}) for settings in several.values()]
    return [str(each.get("task")) for each in environments if each.get("seeded") is False]


def _settings_by_task(first: Evaluation, second: Evaluation) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """The settings to be compared, and words for the task; of several tasks those of each that both have."""
    own, others = first.settings.get("tasks"), second.settings.get("tasks")
    if own is None or others is None:
        return [("", first.settings, second.settings)]
    return [(f" of {task}", own[task], others[task]) for task in own if task in others]


def _without_repetitions(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Drop all but the first of the evaluations of one checkpoint with the same seeds and settings: their rows are the
    same."""
    unique: list[Evaluation] = []
    for evaluation in evaluations:
        if not any(
            other.checkpoint == evaluation.checkpoint
            and other.successes.keys() == evaluation.successes.keys()
            and other.settings == evaluation.settings
            and not pairing_problem(other, evaluation)
            for other in unique
        ):
            unique.append(evaluation)
    return unique


def _groups(ordered: Sequence[Evaluation]) -> tuple[tuple[int, ...], ...]:
    groups: list[list[int]] = []
    for i, evaluation in enumerate(ordered):
        for group in groups:
            if all(pairing_problem(ordered[member], evaluation) is None for member in group):
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
    """Unique labels: the run's name; if that is not unique, with the sweep's name; if needed, with the run's id."""
    plain = [evaluation.name for evaluation in ordered]
    names = [
        name if plain.count(name) == 1 else f"{evaluation.sweep_name} / {name}"
        for name, evaluation in zip(plain, ordered, strict=True)
    ]
    return [
        name if names.count(name) == 1 and name not in ("seed", SOLVED_BY, DISAGREE) else f"{name} ({evaluation.run})"
        for name, evaluation in zip(names, ordered, strict=True)
    ]


def _standing(evaluation: Evaluation, label: str, rank: tuple[int, int]) -> Standing:
    rows = evaluation.rows
    return Standing(
        evaluation=evaluation,
        label=label + (" (mismatch allowed)" if evaluation.tags.get(MISMATCH_TAG) == "true" else ""),
        success=evaluation.success,
        outcomes={name: sum(row.outcome == name for row in rows) for name in unsolved(evaluation.settings, rows)},
        episode_return=fmean(row.episode_return for row in rows),
        length=fmean(row.length for row in rows),
        extras=extra_means(rows),
        rank=rank,
    )


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)
