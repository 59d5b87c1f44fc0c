"""The gate of a promotion: what has to hold before a checkpoint may become champion, rule by rule, with its numbers.

Rules are functions of `Evidence`, which `mlflow_project.promotion` gathers; nothing here reads a file or a server.

The candidate is the best of several on the very episodes that it is judged by, so its rate is flattered. Every
statement about its success is therefore made at ``alpha / K``, K the number of checkpoints it was the best of
(Bonferroni): whichever had been picked, the statement would be wrong with a probability of at most alpha.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from rlinf_isaac.paired import PairedCounts
from rlinf_isaac.sequential import ALPHA
from rlinf_isaac.statistics import RateEstimate, clopper_pearson_interval, difference_bound

Require = Literal["better", "not-worse"]


@dataclass(frozen=True)
class Demands:
    """What is asked of a candidate.

    Attributes:
        min_success: the success rate that it must be shown to reach, in [0, 1].
        require: against the champion: ``better``, or ``not-worse`` by `margin` or more.
        margin: difference of success rates, in (0, 1].
        alpha: error rate of each of the two statements.
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
        chosen_from: of how many checkpoints on these seeds it is the best; at least 1.
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
        f" (confidence {_percent(1 - alpha)}{_corrected(evidence)}), asked for {_percent(demands.min_success)}"
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
        finding += f"exact McNemar test, one-sided p {p_value:.4g}, asked for {alpha:.4g}{_corrected(evidence)}"
        return None if p_value <= alpha else finding, finding
    low = difference_bound(counts, alpha)
    finding += (
        f"exact lower bound of the difference {_percent(low)} (confidence {_percent(1 - alpha)}{_corrected(evidence)}),"
        f" asked for more than {_percent(-demands.margin)}"
    )
    return None if low > -demands.margin else finding, finding


RULES: dict[str, Rule] = {
    "bundle": _bundle,
    "lineage": _lineage,
    "no-override": _no_override,
    "rows": _rows,
    "videos": _videos,
    "not-rolled-back": _not_rolled_back,
    "min-success": _min_success,
    "champion": _champion,
}


def _level(evidence: Evidence, demands: Demands) -> float:
    return demands.alpha / evidence.chosen_from


def _corrected(evidence: Evidence) -> str:
    return f", as the best of {evidence.chosen_from}" if evidence.chosen_from > 1 else ""


def _none_of(problems: tuple[str, ...]) -> str | None:
    return "; ".join(problems) or None


def _percent(rate: float) -> str:
    return f"{100 * rate:.4g} %"
