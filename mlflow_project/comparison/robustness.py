"""What a checkpoint loses when its environment is varied: each axis against the control arm on the same seeds.

The control arm is the checkpoint's own evaluation. Its episodes differ from the varied ones in nothing but the
variation, so they are compared seed by seed; the p-values of a checkpoint's axes are corrected together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_project.comparison.evaluations import Evaluation
from mlflow_project.comparison.standings import Standing
from rlinf_isaac.stats.differences import Difference, paired_difference
from rlinf_isaac.stats.paired import PairedCounts, holm
from rlinf_isaac.stats.rates import RateEstimate
from rlinf_isaac.stats.sequential import ALPHA

METHOD = (
    "exact McNemar test on the seeds that only one of the two arms solves, two-sided, corrected by Holm over the axes"
    f" of a checkpoint (family-wise error rate {100 * ALPHA:g} %); intervals of differences by Newcombe's method 10"
)


@dataclass(frozen=True)
class Arm:
    """One axis of a checkpoint beside its control.

    Attributes:
        axis, strength: as in `Variation`.
        success: rate of the varied episodes with its 95 % Wilson interval.
        control: that of the usual episodes on the same seeds.
        counts: outcomes seed by seed; `wins` are seeds that were solved only where varied, `losses` those only where
            not.
        difference: varied - control, with its 95 % interval.
        p_value: two-sided p-value of this axis alone.
        adjusted: adjusted by Holm over the axes of the checkpoint.
    """

    axis: str
    strength: float
    success: RateEstimate
    control: RateEstimate
    counts: PairedCounts
    difference: Difference
    p_value: float
    adjusted: float

    @property
    def shown(self) -> bool:
        """Whether it is shown that the variation makes a difference."""
        return self.adjusted <= ALPHA


def arms_of(evaluation: Evaluation) -> tuple[Arm, ...]:
    """The axes of a checkpoint, in the order in which they were played; those without a common seed are left out."""
    found = []
    for varied in evaluation.varied:
        counts = PairedCounts.of(varied.successes, evaluation.successes)
        if counts.n:
            found.append((varied, counts, counts.p_value()))
    return tuple(
        Arm(
            varied.axis,
            varied.strength,
            RateEstimate.of(counts.both + counts.wins, counts.n),
            RateEstimate.of(counts.both + counts.losses, counts.n),
            counts,
            paired_difference(counts),
            p_value,
            adjusted,
        )
        for (varied, counts, p_value), adjusted in zip(found, holm([each[-1] for each in found]), strict=True)
    )


def robustness_of(standings: Sequence[Standing]) -> list[tuple[Standing, tuple[Arm, ...]]]:
    """The checkpoints that were varied, with their arms."""
    found = [(standing, arms_of(standing.evaluation)) for standing in standings]
    return [(standing, arms) for standing, arms in found if arms]


def robustness_table(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """One row per checkpoint and axis."""
    return [
        {
            "checkpoint": standing.label,
            "axis": arm.axis,
            "strength": arm.strength,
            "episodes": arm.counts.n,
            "control": arm.control.rate,
            "success": arm.success.rate,
            "low": arm.success.low,
            "high": arm.success.high,
            "difference": arm.difference.value,
            "difference low": arm.difference.low,
            "difference high": arm.difference.high,
            "only varied solved": arm.counts.wins,
            "only control solved": arm.counts.losses,
            "p": arm.p_value,
            "p (Holm)": arm.adjusted,
        }
        for standing, arms in robustness_of(standings)
        for arm in arms
    ]


def robustness_metrics(evaluation: Evaluation) -> dict[str, float]:
    """``robustness/AXIS/...`` of a checkpoint: its rate, the difference to the control with its interval, and p."""
    metrics: dict[str, float] = {}
    for arm in arms_of(evaluation):
        values = {
            "success_once": arm.success.rate,
            "difference": arm.difference.value,
            "difference_low": arm.difference.low,
            "difference_high": arm.difference.high,
            "p_value": arm.p_value,
            "p_holm": arm.adjusted,
        }
        metrics |= {f"robustness/{arm.axis}/{name}": value for name, value in values.items()}
    return metrics


def robustness_notes(standings: Sequence[Standing]) -> list[str]:
    """A sentence for each checkpoint that was varied: along which axes it is shown to lose or gain."""
    notes = []
    for standing, arms in robustness_of(standings):
        parts = [f"{arm.axis} {100 * arm.difference.value:+.0f} points (p = {arm.adjusted:#.2g})" for arm in arms]
        shown = [arm.axis for arm in arms if arm.shown]
        end = f"a difference is shown for {', '.join(shown)}" if shown else "none of these is shown to be a difference"
        notes.append(f"Robustness of {standing.label}: {'; '.join(parts)}; {end}.")
    return notes
