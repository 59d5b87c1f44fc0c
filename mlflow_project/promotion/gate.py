"""The gate of a promotion: what has to hold before a checkpoint may become champion, rule by rule, with its numbers.

Rules are functions of `Evidence`, which `mlflow_project.promotion.judge` gathers; nothing here reads a file or a
server.

Whoever evaluates often enough finds a checkpoint that was lucky: the best of six equals of the champion passes a test
at 5 % in some 15 % of all cases, and so does one of five attempts on fresh seeds. What counts is therefore not how a
candidate is named but what it could have been picked from: K is the number of evaluations with rows of their own that
the store has at this task since the champion took its place, M how many of these its newest sweep makes
(`mlflow_project.promotion.looks` says exactly which). Both statements about a candidate's success are made at

    alpha / ((K - M + 1) (K + 1))

which is alpha / (K + 1) for a first sweep of K checkpoints, and alpha / (K (K + 1)) for the last of K single attempts.

Why not at alpha / K: that is enough when all K evaluations are made first and one of them is picked then. But one may
look after every evaluation and stop at the first that passes. The chances are then alpha, alpha / 2, alpha / 3, ...:
their sum grows without bound. Here a sweep has M chances, which is

    M alpha / ((K - M + 1) (K + 1)) = alpha / (K - M + 1) - alpha / (K + 1)

together, and the sum over one sweep after the other is alpha (1 - 1 / (K + 1)). How many checkpoints a sweep evaluates
is fixed before its first episode, and counts from then on, so nothing is gained by looking while it runs. The level
only falls: no evaluation is ever tested at more than when its sweep was the newest, whenever, how often and by whatever
name it is presented. So the probability that a champion is ever replaced by a checkpoint for which the statement is
wrong is at most alpha, whatever the number of evaluations and however their episodes depend on each other; alpha for
each champion, each task and each of the two statements. `benchmarks/gate.py` simulates it.

An evaluation of the winner alone on fresh seeds is an honest sample of it, which the choice did not flatter. It is one
more evaluation nevertheless, since one may go on to fresh seeds until one set of them is lucky; rows that are the same
again are none. It pays all the same: the level falls with the logarithm of K, the evidence grows with the episodes.
Seeds won, and none lost, that it takes at alpha = 0.05 to be called better:

    K                              1    4   10   20  100
    the best of a first sweep      6    7    8    9   11
    the last of single attempts    6    9   12   14   18

The bound holds for checkpoints that do not depend on the episodes they are judged by. One that was trained from the
best on the same seeds inherits some of its luck. The evaluations which that choice was made from are counted, what
would have been trained from the others is not: fresh seeds are free of that doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from rlinf_isaac.stats.paired import PairedCounts
from rlinf_isaac.stats.rates import RateEstimate, clopper_pearson_interval, difference_bound
from rlinf_isaac.stats.sequential import ALPHA

Require = Literal["better", "not-worse"]


@dataclass(frozen=True)
class Demands:
    """What is asked of a candidate.

    Attributes:
        min_success: the success rate that it must be shown to reach, in [0, 1].
        require: against the champion: ``better``, or ``not-worse`` by `margin` or more.
        margin: difference of success rates, in (0, 1].
        alpha: error rate of each of the two statements, over all evaluations while one champion stays.
    """

    min_success: float = 0.5
    require: Require = "better"
    margin: float = 0.1
    alpha: float = ALPHA


@dataclass(frozen=True)
class Champion:
    """The version that holds the place.

    Attributes:
        version: its number.
        successes: seed -> success on the candidate's seeds and settings; None where that could not be had.
        problem: why not.
        anew: whether it was evaluated for this promotion.
    """

    version: str
    successes: Mapping[int, bool] | None
    problem: str | None = None
    anew: bool = False


@dataclass(frozen=True)
class Evidence:
    """What is known of a candidate. Texts are problems, one per thing that is not as it should be.

    Attributes:
        files: number of the bundle's files that were hashed.
        bundle: problems of the bundle's bytes.
        links: number of links of its chain that were looked at.
        breaks: where the chain is broken; overrides are apart.
        overrides: runs of the chain that went on in spite of a mismatch.
        rows: problems of the episode rows.
        videos: number of videos that were decoded.
        unplayable: problems of videos.
        successes: seed -> success.
        chosen_from: K, the number of evaluations that it could have been picked from, its own among them.
        newest_sweep: M, how many of these are of the newest sweep; 1 for single evaluations.
        chosen_among: what these are, for people.
        since: version of the champion that the count begins with; None: it begins with the store.
        assumptions: what nobody recorded of the weights and somebody had to assume.
        rolled_back: version of the same bytes that was champion and was rolled back, or None.
        champion: None: there is none yet.
    """

    files: int
    bundle: tuple[str, ...]
    links: int
    breaks: tuple[str, ...]
    overrides: tuple[str, ...]
    rows: tuple[str, ...]
    videos: int
    unplayable: tuple[str, ...]
    successes: Mapping[int, bool]
    chosen_from: int
    newest_sweep: int = 1
    chosen_among: tuple[str, ...] = ()
    since: str | None = None
    assumptions: tuple[str, ...] = ()
    rolled_back: str | None = None
    champion: Champion | None = None


@dataclass(frozen=True)
class Ruling:
    """What one rule says: its name, whether it lets the candidate pass, and why, with the numbers."""

    rule: str
    passed: bool
    because: str


def judge(evidence: Evidence, demands: Demands) -> tuple[Ruling, ...]:
    """Every rule, in a fixed order; a candidate is promoted when all let it pass."""
    rulings = []
    for name, rule in RULES.items():
        problem, finding = rule(evidence, demands)
        rulings.append(Ruling(name, problem is None, finding if problem is None else problem))
    return tuple(rulings)


Rule = Callable[[Evidence, Demands], tuple[str | None, str]]
"""Gives (why it refuses, or None; what it found)."""


def _bundle(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    return _none_of(evidence.bundle), f"{evidence.files} files hashed"


def _lineage(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    return _none_of(evidence.breaks), f"{evidence.links} links looked at, 0 breaks"


def _no_override(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    return _none_of(evidence.overrides), "no run of the chain went on in spite of a mismatch"


def _assumptions(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    """Lets everything pass: an assumption is to be seen, not to be forbidden."""
    return None, "; ".join(evidence.assumptions) or "nothing was assumed"


def _rows(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    seeds = evidence.successes
    return _none_of(evidence.rows), f"{len(seeds)} episodes, seeds {min(seeds)} to {max(seeds)}"


def _videos(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    problems = evidence.unplayable if evidence.videos else (*evidence.unplayable, "no episode was recorded")
    return _none_of(problems), f"{evidence.videos} decoded, each as long as its episode"


def _not_rolled_back(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    version = evidence.rolled_back
    return version and f"version {version} has the same bytes and was rolled back", "never rolled back"


def _min_success(evidence: Evidence, demands: Demands) -> tuple[str | None, str]:
    """One-sided Clopper-Pearson bound."""
    alpha, n = _level(evidence, demands), len(evidence.successes)
    low = clopper_pearson_interval(sum(evidence.successes.values()), n, 1 - 2 * alpha)[0]
    rate = RateEstimate.of(sum(evidence.successes.values()), n)
    finding = (
        f"success {rate.successes}/{n} = {_percent(rate.rate)}, Clopper-Pearson lower bound {_percent(low)}"
        f" (confidence {_percent(1 - alpha)}), asked for {_percent(demands.min_success)}{_corrected(evidence, demands)}"
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
        finding += (
            f"exact McNemar test, one-sided p {p_value:.4g}, asked for {alpha:.4g}{_corrected(evidence, demands)}"
        )
        return None if p_value <= alpha else finding, finding
    low = difference_bound(counts, alpha)
    finding += (
        f"exact lower bound of the difference {_percent(low)} (confidence {_percent(1 - alpha)}),"
        f" asked for more than {_percent(-demands.margin)}{_corrected(evidence, demands)}"
    )
    return None if low > -demands.margin else finding, finding


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
    """Error rate of one statement about one evaluation, so that all together err with at most alpha.

    Args:
        chosen_from: number of evaluations so far, K.
        newest_sweep: how many of these the newest sweep makes, M, in [1, K].
    """
    return alpha / ((chosen_from - newest_sweep + 1) * (chosen_from + 1))


def _level(evidence: Evidence, demands: Demands) -> float:
    return level(demands.alpha, evidence.chosen_from, evidence.newest_sweep)


def _corrected(evidence: Evidence, demands: Demands) -> str:
    """Why the level is what it is: K, and what it consists of."""
    k, before = evidence.chosen_from, evidence.chosen_from - evidence.newest_sweep
    best = f"the best of {k} evaluations" if k > 1 else "the first evaluation"
    since = f" since version {evidence.since} became champion" if evidence.since else ""
    among = f": {', '.join(evidence.chosen_among)}" if evidence.chosen_among else ""
    return f"; alpha is {demands.alpha:g} / ({before + 1} x {k + 1}) as {best}{since}{among}"


def _none_of(problems: tuple[str, ...]) -> str | None:
    return "; ".join(problems) or None


def _percent(rate: float) -> str:
    return f"{100 * rate:.4g} %"
