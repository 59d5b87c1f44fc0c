"""The same episodes by two success rules: at rest, by which they are counted, and touched once.

The second is IsaacLab 2.x's, by whose reward RLinf counts. An episode ends with its first success at rest, so what the
older rule would have said of the time after it is not known, and does not matter: it held already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlflow_project.comparison.episodes import solved
from mlflow_project.comparison.standings import Standing
from rlinf_isaac.ground.events import EpisodeRow
from rlinf_isaac.stats.rates import RateEstimate
from rlinf_isaac.tasks.success_rules import TOUCHED_AT_END, TOUCHED_ONCE


@dataclass(frozen=True)
class Audit:
    """Episodes that were judged by both rules.

    Attributes:
        at_rest: the success rate, by the rule that counts.
        touched: that by the older rule.
        fell: episodes that only the older rule takes for a success, and whose stack did not stand at their end.
    """

    at_rest: RateEstimate
    touched: RateEstimate
    fell: int

    @property
    def more(self) -> int:
        """Episodes that only the older rule takes for a success."""
        return self.touched.successes - self.at_rest.successes

    @property
    def sentence(self) -> str:
        """What the older rule would say."""
        words = f"by the older rule (touched once) {100 * self.touched.rate:.1f} %, not {100 * self.at_rest.rate:.1f} %"
        if not self.more:
            return f"{words.partition(', not')[0]} as well: both rules agree on all {self.touched.n} episodes"
        return f"{words}: {self.more} episode{'s' * (self.more > 1)} more, of which {self.fell} fell again"


def audit_of(rows: Sequence[EpisodeRow]) -> Audit | None:
    """Both rules on the episodes that have the numbers for it; None if there is none."""
    judged = [row for row in rows if TOUCHED_ONCE in row.extras and TOUCHED_AT_END in row.extras]
    if not judged:
        return None
    touched = [row for row in judged if row.success or row.extras[TOUCHED_ONCE]]
    return Audit(
        RateEstimate.of(*solved(judged)),
        RateEstimate.of(len(touched), len(judged)),
        sum(not row.success and not row.extras[TOUCHED_AT_END] for row in touched),
    )


def audits_of(standings: Sequence[Standing]) -> list[tuple[Standing, Audit]]:
    """The checkpoints whose episodes have the numbers, with their audits."""
    found = [(standing, audit_of(standing.evaluation.rows)) for standing in standings]
    return [(standing, audit) for standing, audit in found if audit is not None]


def audit_metrics(rows: Sequence[EpisodeRow]) -> dict[str, float]:
    """``eval/success_touched``, the rate by the older rule, and ``eval/touched_fell_rate``, the share of episodes that
    it counts and that fell again; nothing if the episodes lack the numbers."""
    audit = audit_of(rows)
    if audit is None:
        return {}
    return {"eval/success_touched": audit.touched.rate, "eval/touched_fell_rate": audit.fell / audit.touched.n}


def audit_notes(standings: Sequence[Standing]) -> list[str]:
    """A sentence for each checkpoint on which the rules differ."""
    return [f"{standing.label}: {audit.sentence}." for standing, audit in audits_of(standings) if audit.more]
