"""Renders a comparison as one self-contained HTML page.

MLflow shows an HTML artifact in an iframe with ``sandbox="allow-scripts"`` and a blob: address: scripts run and media
of the server play, but links, storage and relative addresses do not work. The page's script therefore builds the
addresses of the videos (``/get-artifact``) from the origin in the page's own address. Jinja's autoescape escapes all
text from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from mlflow_project.comparison.compare import RANK_NOTE, Comparison
from mlflow_project.comparison.evaluations import TIMEOUT
from mlflow_project.comparison.standings import Pair, Standing
from mlflow_project.comparison.tables import ending_title, task_notes, task_rates

if TYPE_CHECKING:
    import jinja2

    from rlinf_isaac.ground.events import EpisodeRow

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


@dataclass(frozen=True)
class Cell:
    """One cell of the win matrix. `state` of the row's checkpoint: better, worse, equal (tied) or self."""

    state: str
    wins: int | None = None
    losses: int | None = None
    p_value: str = ""
    title: str = ""


@dataclass(frozen=True)
class SeedRow:
    """One seed of a group of paired checkpoints; `episodes` has one entry per checkpoint, None if not evaluated. `task`
    is empty if there is only one."""

    seed: int
    episodes: tuple[EpisodeRow | None, ...]
    task: str = ""

    @property
    def label(self) -> str:
        """The seed, and the task if there are several."""
        return f"{self.task} {self.seed}" if self.task else str(self.seed)

    @property
    def disagree(self) -> bool:
        """Whether some checkpoints solved the seed and others did not."""
        return len({row.success for row in self.episodes if row is not None}) > 1

    @property
    def filmed(self) -> bool:
        """Whether any of the episodes has a video."""
        return any(row is not None and row.video for row in self.episodes)


@dataclass(frozen=True)
class Group:
    """Checkpoints whose episodes are paired, and their seeds, disagreements first."""

    members: tuple[Standing, ...]
    seeds: tuple[SeedRow, ...]

    @property
    def filmed(self) -> tuple[SeedRow, ...]:
        """The seeds with videos."""
        return tuple(row for row in self.seeds if row.filmed)


def render(comparison: Comparison, title: str) -> str:
    """Render the page. Runs appear in the addresses of videos as in `Evaluation.run` (an id or a placeholder)."""
    standings = comparison.standings
    starts = _starts(standings)
    steps = sorted({standing.evaluation.step for standing in standings if standing.label not in starts})
    return _template().render(
        title=title,
        comparison=comparison,
        rank_note=RANK_NOTE,
        task_rates=task_rates(comparison),
        task_notes=task_notes(comparison),
        several_sweeps=len({standing.evaluation.sweep for standing in standings}) > 1,
        facts=_facts(comparison),
        series=_series(standings, starts, steps),
        x_ticks=[(_x(step, steps), step) for step in steps[:: -(-len(steps) // LARGEST_NUMBER_OF_TICKS)]],
        y_ticks=[(_y(rate), f"{rate:.0%}") for rate in (0, 0.25, 0.5, 0.75, 1)],
        plot={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM},
        matrix=_matrix(comparison),
        groups=[_group(comparison, indices) for indices in comparison.groups],
    )


def p_text(p_value: float) -> str:
    """Three decimals, or ``< 0.001``."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mlflow_project.comparison", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["p"] = p_text
    environment.filters["ending_title"] = ending_title
    environment.filters["ending"] = lambda outcome: outcome if outcome in ("success", TIMEOUT) else "drop"
    return environment.get_template("report.html.jinja")


def _facts(comparison: Comparison) -> list[str]:
    """The task, prompt, backend and action chunk, as far as they are the same for all checkpoints."""
    settings = [standing.evaluation.settings for standing in comparison.standings]
    environments = [setting.get("environment", {}) for setting in settings]
    facts = [environments[0].get(key) for key in ("task", "prompt", "backend") if _same(environments, key)]
    if _same(settings, "action_chunk") and "action_chunk" in settings[0]:
        facts.append(f"action chunk {settings[0]['action_chunk']}")
    return [str(fact) for fact in facts if fact is not None]


def _same(mappings: Sequence[Mapping[str, Any]], key: str) -> bool:
    return all(mapping.get(key) == mappings[0].get(key) for mapping in mappings)


def _starts(standings: Sequence[Standing]) -> dict[str, Standing]:
    """Map the label of a checkpoint to its start checkpoint, if it was trained from another one in the comparison."""
    of_checkpoint = {standing.evaluation.checkpoint: standing for standing in standings}
    starts = {
        standing.label: of_checkpoint[parent]
        for standing in standings
        if (parent := standing.evaluation.parent) in of_checkpoint
    }
    return {label: start for label, start in starts.items() if start.label not in starts}


def _series(standings: Sequence[Standing], starts: Mapping[str, Standing], steps: Sequence[int]) -> list[Series]:
    """One series per sweep, from the earliest step to the latest.

    Reinforcement learning counts iterations, not optimiser steps, so its checkpoints are plotted beside their start.
    """
    all_series: dict[str, Series] = {}
    for standing in sorted(standings, key=lambda one: (one.label in starts, one.evaluation.step)):
        evaluation, rate, start = standing.evaluation, standing.success, starts.get(standing.label)
        x = _x(evaluation.step, steps) if start is None else _x(start.evaluation.step, steps) + BESIDE
        point = PlottedCheckpoint(x, _y(rate.rate), _y(rate.low), _y(rate.high), f"{standing.label}: {rate}")
        series = all_series.setdefault(evaluation.sweep, Series(evaluation.sweep_name))
        series.points.append(point)
        if start is None:
            series.lines[0].append((point.x, point.y))
        else:
            series.lines.append([(_x(start.evaluation.step, steps), _y(start.success.rate)), (point.x, point.y)])
    return list(all_series.values())


def _x(step: int, steps: Sequence[int]) -> float:
    """Horizontal position of a step: steps fill 90 % of the plot's width; a single step is in the middle."""
    share = (step - steps[0]) / (steps[-1] - steps[0]) if len(steps) > 1 else 0.5
    return round(LEFT + (0.05 + 0.9 * share) * (WIDTH - LEFT - RIGHT), 1)


def _y(rate: float) -> float:
    return round(TOP + (1 - rate) * (HEIGHT - TOP - BOTTOM), 1)


def _matrix(comparison: Comparison) -> list[list[Cell]]:
    size = range(len(comparison.standings))
    cells = [[Cell("self") for _ in size] for _ in size]
    for pair in comparison.pairs:
        cells[pair.first][pair.second] = _cell(comparison, pair, pair.first)
        cells[pair.second][pair.first] = _cell(comparison, pair, pair.second)
    return cells


def _cell(comparison: Comparison, pair: Pair, row: int) -> Cell:
    other = pair.second if row == pair.first else pair.first
    state = "equal" if pair.better is None else "better" if pair.better == row else "worse"
    names = comparison.standings[row].label, comparison.standings[other].label
    if pair.counts is None:
        return Cell(state, p_value=p_text(pair.adjusted), title=f"{names[0]} and {names[1]} are not paired")
    wins, losses = pair.counts.wins, pair.counts.losses
    if row != pair.first:
        wins, losses = losses, wins
    title = f"{wins} seeds only {names[0]} solved, {losses} only {names[1]}"
    return Cell(state, wins, losses, p_text(pair.adjusted), title)


def _group(comparison: Comparison, indices: Sequence[int]) -> Group:
    members = tuple(comparison.standings[i] for i in indices)
    episodes = [{(row.task, row.seed): row for row in member.evaluation.rows} for member in members]
    seeds = [
        SeedRow(seed, tuple(rows.get((task, seed)) for rows in episodes), task)
        for task, seed in sorted(set().union(*episodes))
    ]
    return Group(members, tuple(sorted(seeds, key=lambda row: not row.disagree)))
