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
class AxisResult:
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


def axes_of(evaluation: Evaluation) -> tuple[AxisResult, ...]:
    """The axes of a checkpoint, in the order in which they were played; those without a common seed are left out."""
    found = []
    for varied in evaluation.varied:
        counts = PairedCounts.of(varied.successes, evaluation.successes)
        if counts.n:
            found.append((varied, counts, counts.p_value()))
    return tuple(
        AxisResult(
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


def robustness_of(standings: Sequence[Standing]) -> list[tuple[Standing, tuple[AxisResult, ...]]]:
    """The checkpoints that were varied, with their axes."""
    found = [(standing, axes_of(standing.evaluation)) for standing in standings]
    return [(standing, axes) for standing, axes in found if axes]


def robustness_table(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """One row per checkpoint and axis."""
    return [
        {
            "checkpoint": standing.label,
            "axis": each.axis,
            "strength": each.strength,
            "episodes": each.counts.n,
            "control": each.control.rate,
            "success": each.success.rate,
            "low": each.success.low,
            "high": each.success.high,
            "difference": each.difference.value,
            "difference low": each.difference.low,
            "difference high": each.difference.high,
            "only varied solved": each.counts.wins,
            "only control solved": each.counts.losses,
            "p": each.p_value,
            "p (Holm)": each.adjusted,
        }
        for standing, axes in robustness_of(standings)
        for each in axes
    ]


def robustness_metrics(evaluation: Evaluation) -> dict[str, float]:
    """``robustness/AXIS/...`` of a checkpoint: its rate, the difference to the control with its interval, and p."""
    metrics: dict[str, float] = {}
    for each in axes_of(evaluation):
        values = {
            "success_once": each.success.rate,
            "difference": each.difference.value,
            "difference_low": each.difference.low,
            "difference_high": each.difference.high,
            "p_value": each.p_value,
            "p_holm": each.adjusted,
        }
        metrics |= {f"robustness/{each.axis}/{name}": value for name, value in values.items()}
    return metrics


def robustness_notes(standings: Sequence[Standing]) -> list[str]:
    """A sentence for each checkpoint that was varied: along which axes it is shown to lose or gain."""
    notes = []
    for standing, axes in robustness_of(standings):
        parts = [f"{each.axis} {100 * each.difference.value:+.0f} points (p = {each.adjusted:#.2g})" for each in axes]
        shown = [each.axis for each in axes if each.shown]
        end = f"a difference is shown for {', '.join(shown)}" if shown else "none of these is shown to be a difference"
        notes.append(f"Robustness of {standing.label}: {'; '.join(parts)}; {end}.")
    return notes
