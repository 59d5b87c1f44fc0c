"""The plot of success over training steps, in SVG units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow_project.comparison.standings import Standing

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 12, 34
"""Size and margins of the plot, in SVG units."""
BESIDE = 30
"""A checkpoint made by reinforcement learning is plotted so far right of its start checkpoint, in SVG units."""
LARGEST_NUMBER_OF_TICKS = 10


@dataclass(frozen=True)
class PlottedCheckpoint:
    """One checkpoint in the plot; `x`, `y`, `low` and `high` are in SVG units."""

    x: float
    y: float
    low: float
    high: float
    title: str


@dataclass
class Series:
    """One sweep in the plot: lines of (x, y), and points."""

    name: str
    lines: list[list[tuple[float, float]]] = field(default_factory=lambda: [[]])
    points: list[PlottedCheckpoint] = field(default_factory=list)


def plot_of(standings: Sequence[Standing]) -> dict[str, Any]:
    """Everything that the page needs to draw: ``series``, ``x_ticks``, ``y_ticks`` and the sizes."""
    starts = starts_of(standings)
    steps = sorted({standing.evaluation.step for standing in standings if standing.label not in starts})
    return {
        "series": series_of(standings, starts, steps),
        "x_ticks": [(x_of(step, steps), step) for step in steps[:: -(-len(steps) // LARGEST_NUMBER_OF_TICKS)]],
        "y_ticks": [(y_of(rate), f"{rate:.0%}") for rate in (0, 0.25, 0.5, 0.75, 1)],
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
    }


def starts_of(standings: Sequence[Standing]) -> dict[str, Standing]:
    """Map the label of a checkpoint to its start checkpoint, if it was trained from another one in the comparison."""
    of_checkpoint = {standing.evaluation.checkpoint: standing for standing in standings}
    starts = {
        standing.label: of_checkpoint[parent]
        for standing in standings
        if (parent := standing.evaluation.parent) in of_checkpoint
    }
    return {label: start for label, start in starts.items() if start.label not in starts}


def series_of(standings: Sequence[Standing], starts: Mapping[str, Standing], steps: Sequence[int]) -> list[Series]:
    """One series per sweep, from the earliest step to the latest.

    Reinforcement learning counts iterations, not optimiser steps, so its checkpoints are plotted beside their start.
    """
    all_series: dict[str, Series] = {}
    for standing in sorted(standings, key=lambda one: (one.label in starts, one.evaluation.step)):
        evaluation, rate, start = standing.evaluation, standing.success, starts.get(standing.label)
        x = x_of(evaluation.step, steps) if start is None else x_of(start.evaluation.step, steps) + BESIDE
        point = PlottedCheckpoint(x, y_of(rate.rate), y_of(rate.low), y_of(rate.high), f"{standing.label}: {rate}")
        series = all_series.setdefault(evaluation.sweep, Series(evaluation.sweep_name))
        series.points.append(point)
        if start is None:
            series.lines[0].append((point.x, point.y))
        else:
            series.lines.append([(x_of(start.evaluation.step, steps), y_of(start.success.rate)), (point.x, point.y)])
    return list(all_series.values())


def x_of(step: int, steps: Sequence[int]) -> float:
    """Horizontal position of a step: steps fill 90 % of the plot's width; a single step is in the middle."""
    share = (step - steps[0]) / (steps[-1] - steps[0]) if len(steps) > 1 else 0.5
    return round(LEFT + (0.05 + 0.9 * share) * (WIDTH - LEFT - RIGHT), 1)


def y_of(rate: float) -> float:
    """Vertical position of a rate between 0 and 1."""
    return round(TOP + (1 - rate) * (HEIGHT - TOP - BOTTOM), 1)
