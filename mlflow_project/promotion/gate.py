"""The gate of a promotion: the rules that a checkpoint must pass before it may become champion.

Each rule is a function of `Evidence`, which `mlflow_project.promotion.judge` gathers; this module reads neither files
nor servers.

If enough checkpoints are evaluated, one of them is lucky: the best of six checkpoints that equal the champion passes a
test at 5 % in some 15 % of all cases, and so does one of five attempts on fresh seeds. The error rate of a test
therefore depends on all evaluations that the candidate could have been picked from. K is the number of evaluations with
different rows that the store has for this task since the champion was promoted, and M is the number of these in the
newest sweep (`mlflow_project.promotion.looks` defines both). The two statistical rules test at the level

    alpha / ((K - M + 1) (K + 1))

which is alpha / (K + 1) for a first sweep of K checkpoints, and alpha / (K (K + 1)) for the last of K single attempts.

The level alpha / K would suffice if all K evaluations were made before one of them is picked. But a user may look after
every evaluation and stop at the first one that passes. The error rates are then alpha, alpha / 2, alpha / 3, ..., and
their sum grows without bound. At the level used here, the M tests of a sweep have a total error rate of

    M alpha / ((K - M + 1) (K + 1)) = alpha / (K - M + 1) - alpha / (K + 1)

and the sum over all sweeps is alpha (1 - 1 / (K + 1)). The number of checkpoints in a sweep is fixed before its first
episode and counts from then on, so looking at a running sweep gains nothing. The level of an evaluation never rises
later: it is highest while its sweep is the newest, however often and under whatever name it is presented. So the
probability that a champion is ever replaced by a checkpoint for which the tested statement is wrong is at most alpha,
for any number of evaluations and any dependence between their episodes. This bound holds for each champion, each task
and each of the two statements. `benchmarks/gate.py` simulates it.

A new evaluation of the winner alone on fresh seeds is an unbiased sample, because the winner was not selected by it. It
counts as one more evaluation nevertheless, because fresh seeds could be tried until one set is lucky; repeating the
same rows does not count. It is still worth while: the number of wins that is needed grows with the logarithm of K, and
the evidence with the number of episodes. Number of seeds that a candidate must win, losing none, to be called better
at alpha = 0.05:

    K                              1    4   10   20  100
    the best of a first sweep      6    7    8    9   11
    the last of single attempts    6    9   12   14   18

The bound holds for checkpoints that do not depend on the episodes used to judge them. A checkpoint that was trained
from the best one and judged on the same seeds inherits some of its luck. The evaluations among which that best one was
selected are counted, but not the checkpoints that might have been trained from the others. Fresh seeds avoid the
problem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from mlflow_project.promotion.every_task import ONE_TASK, by_task, failing_tasks, percent
from rlinf_isaac.ground.events import EpisodeKey
from rlinf_isaac.stats.paired import PairedCounts
from rlinf_isaac.stats.rates import RateEstimate, clopper_pearson_interval, difference_bound
from rlinf_isaac.stats.sequential import ALPHA

Require = Literal["better", "not-worse"]


@dataclass(frozen=True)
class Demands:
    """The requirements on a candidate.

    Attributes:
        min_success: success rate that the candidate must be shown to reach, in [0, 1].
        require: what must be shown against the champion: the candidate is ``better``, or it is ``not-worse`` by
            `margin` or more.
        margin: difference of success rates, in (0, 1].
        alpha: error rate of each of the two tests, over all evaluations during the reign of one champion.
        every_task: each task of a suite must reach `min_success`, and must not be worse than the champion by `margin`
            or more, at the same levels. That all of them pass by luck is no more likely than that one does, so no
            level is split among the tasks (intersection-union test: R. L. Berger, Multiparameter hypothesis testing
            and acceptance sampling, Technometrics 24 (1982)).
        training_seeds: trainings that the recipes of candidate and champion must have; from 2 on they are compared
            (`promotion.trainings`).
    """

    min_success: float = 0.5
    require: Require = "better"
    margin: float = 0.1
    alpha: float = ALPHA
    every_task: bool = False
    training_seeds: int = 1


@dataclass(frozen=True)
class Champion:
    """The current champion.

    Attributes:
        version: number of its model version.
        successes: seed -> success on the candidate's seeds and settings; None if it could not be evaluated on them.
        problem: why it could not be evaluated, or None.
        anew: whether it was evaluated for this promotion.
    """

    version: str
    successes: Mapping[EpisodeKey, bool] | None
    problem: str | None = None
    anew: bool = False


@dataclass(frozen=True)
class Evidence:
    """Everything that the rules need to know about a candidate. Each text describes one problem.

    Attributes:
        files: number of files of the bundle that were hashed.
        bundle: problems of the bundle's bytes.
        links: number of links of the chain that were checked.
        breaks: breaks of the chain, other than `overrides`.
        overrides: runs of the chain that were allowed to continue in spite of a mismatch.
        rows: problems of the episode rows.
        videos: number of videos that were decoded.
        unplayable: problems of videos.
        successes: seed, or (seed, task), -> success.
        chosen_from: K, the number of evaluations that the candidate could have been picked from, including its own.
        newest_sweep: M, the number of these that belong to the newest sweep; 1 for single evaluations.
        chosen_among: description of these evaluations, for people.
        since: number of the version with whose promotion the count begins; None if it begins with the store.
        assumptions: facts about the weights that nobody recorded and that were assumed.
        rolled_back: number of a version with the same bytes that was rolled back, or None.
        champion: the current champion; None if there is none.
    """

    files: int
    bundle: tuple[str, ...]
    links: int
    breaks: tuple[str, ...]
    overrides: tuple[str, ...]
    rows: tuple[str, ...]
    videos: int
    unplayable: tuple[str, ...]
    successes: Mapping[EpisodeKey, bool]
    chosen_from: int
    newest_sweep: int = 1
    chosen_among: tuple[str, ...] = ()
    since: str | None = None
    assumptions: tuple[str, ...] = ()
    rolled_back: str | None = None
    champion: Champion | None = None


@dataclass(frozen=True)
class Ruling:
    """Result of one rule: its name, whether the candidate passes, and the reason with the numbers."""

    rule: str
    passed: bool
    because: str


def judge(evidence: Evidence, demands: Demands) -> tuple[Ruling, ...]:
    """Apply every rule, in a fixed order. A candidate is promoted only if it passes all of them."""
    rulings = []
    for name, rule in (RULES | ({"every-task": _every_task} if demands.every_task else {})).items():
        problem, finding = rule(evidence, demands)
        rulings.append(Ruling(name, problem is None, finding if problem is None else problem))
    return tuple(rulings)


Rule = Callable[[Evidence, Demands], tuple[str | None, str]]
"""Returns the reason for a refusal (or None), and the finding if the candidate passes."""


def _bundle(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    return _none_of(evidence.bundle), f"{evidence.files} files hashed"


def _lineage(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    return _none_of(evidence.breaks), f"{evidence.links} links checked, 0 breaks"


def _no_override(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    return _none_of(evidence.overrides), "no run of the chain continued in spite of a mismatch"


def _assumptions(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    """Always passes: assumptions are shown, but allowed."""
    return None, "; ".join(evidence.assumptions) or "nothing was assumed"


def _rows(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    seeds = [key if isinstance(key, int) else key[0] for key in evidence.successes]
    tasks = by_task(evidence.successes)
    of = "" if ONE_TASK in tasks else f" of {len(tasks)} tasks"
    return _none_of(evidence.rows), f"{len(seeds)} episodes{of}, seeds {min(seeds)} to {max(seeds)}"


def _videos(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    problems = evidence.unplayable if evidence.videos else (*evidence.unplayable, "no episode was recorded")
    return _none_of(problems), f"{evidence.videos} decoded, each as long as its episode"


def _not_rolled_back(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    version = evidence.rolled_back
    return version and f"version {version} has the same bytes and was rolled back", "never rolled back"


def _min_success(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    """Compare the one-sided Clopper-Pearson lower bound of the success rate with the required one.

    Of several tasks with equally many episodes it is the bound of the macro average: the successes scatter no more than
    those of as many episodes at that one rate (Hoeffding 1956, see `comparison.by_task`).
    """
    alpha, n = _level(evidence, demands), len(evidence.successes)
    low = clopper_pearson_interval(sum(evidence.successes.values()), n, 1 - 2 * alpha)[0]
    rate = RateEstimate.of(sum(evidence.successes.values()), n)
    finding = (
        f"{_what(evidence)} {rate.successes}/{n} = {percent(rate.rate)}, Clopper-Pearson lower bound {percent(low)}"
        f" (confidence {percent(1 - alpha)}), required {percent(demands.min_success)}{_corrected(evidence, demands)}"
    )
    return None if low >= demands.min_success else finding, finding


def _champion(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    champion = evidence.champion
    if champion is None:
        return None, "there is no champion yet"
    if champion.successes is None or champion.successes.keys() != evidence.successes.keys():
        return f"no paired episodes of version {champion.version}: {champion.problem or 'other seeds'}", ""
    counts, alpha = PairedCounts.of(evidence.successes, champion.successes), _level(evidence, demands)
    finding = (
        f"against version {champion.version}{' (evaluated anew)' if champion.anew else ''} on {counts.n} seeds:"
        f" {counts.wins} won, {counts.losses} lost, {counts.both} solved by both, {counts.neither} by neither; "
    )
    if demands.require == "better":
        p_value = counts.p_value("greater")
        finding += f"exact McNemar test, one-sided p {p_value:.4g}, required {alpha:.4g}{_corrected(evidence, demands)}"
        return None if p_value <= alpha else finding, finding
    low = difference_bound(counts, alpha)
    finding += (
        f"exact lower bound of the difference {percent(low)} (confidence {percent(1 - alpha)}),"
        f" required more than {percent(-demands.margin)}{_corrected(evidence, demands)}"
    )
    return None if low > -demands.margin else finding, finding


def _every_task(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    """With `Demands.every_task`: both statistical rules in each task, `not-worse` against the champion."""
    tasks = by_task(evidence.successes)
    alpha, champion = _level(evidence, demands), evidence.champion
    theirs = by_task(champion.successes) if champion is not None and champion.successes is not None else {}
    failing, lowest = failing_tasks(tasks, theirs, demands.min_success, demands.margin, alpha)
    required = f"required in each task {percent(demands.min_success)}"
    required += f", and more than {percent(-demands.margin)} against the champion" if theirs else ""
    if failing:
        return f"{'; '.join(failing)}; {required}{_corrected(evidence, demands)}", ""
    finding = f"{len(tasks)} tasks, lowest Clopper-Pearson lower bound {percent(lowest)}; {required}"
    return None, finding + _corrected(evidence, demands)


def _what(evidence: Evidence) -> str:
    tasks = by_task(evidence.successes)
    return f"macro average of {len(tasks)} tasks," if ONE_TASK not in tasks else "success"


RULES: dict[str, Rule] = {
    "bundle": _bundle,
    "lineage": _lineage,
    "no-override": _no_override,
    "assumptions": _assumptions,
    "rows": _rows,
    "videos": _videos,
    "not-rolled-back": _not_rolled_back,
    "min-success": _min_success,
    "champion": _champion,
}


def level(alpha: float, chosen_from: int, newest_sweep: int = 1) -> float:
    """Level of the test of one evaluation, chosen so that all tests together have an error rate of at most alpha.

    Args:
        chosen_from: K, the number of evaluations so far.
        newest_sweep: M, the number of these in the newest sweep, in [1, K].
    """
    return alpha / ((chosen_from - newest_sweep + 1) * (chosen_from + 1))


def _level(evidence: Evidence, demands: Demands) -> float:
    return level(demands.alpha, evidence.chosen_from, evidence.newest_sweep)


def _corrected(evidence: Evidence, demands: Demands) -> str:
    """How the level follows from K and M, and which evaluations K counts."""
    k, before = evidence.chosen_from, evidence.chosen_from - evidence.newest_sweep
    best = f"the best of {k} evaluations" if k > 1 else "the first evaluation"
    since = f" since version {evidence.since} became champion" if evidence.since else ""
    among = f": {', '.join(evidence.chosen_among)}" if evidence.chosen_among else ""
    return f"; alpha is {demands.alpha:g} / ({before + 1} x {k + 1}) as {best}{since}{among}"


def _none_of(problems: tuple[str, ...]) -> str | None:
    return "; ".join(problems) or None
