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

from mlflow_project.comparison.arms import arm_pairs, arm_table
from mlflow_project.comparison.compare import RANK_NOTE, Comparison
from mlflow_project.comparison.episodes import TIMEOUT
from mlflow_project.comparison.foreign import figure
from mlflow_project.comparison.funnel import funnel
from mlflow_project.comparison.intervals import NOTE, difference_of, points
from mlflow_project.comparison.origin import Origin, origins
from mlflow_project.comparison.plot import plot_of
from mlflow_project.comparison.robustness import METHOD, robustness_of
from mlflow_project.comparison.standings import Pair, Standing
from mlflow_project.comparison.success_rules import audits_of
from mlflow_project.comparison.tables import ending_title, task_notes, task_rates
from mlflow_project.comparison.ties import tie_notes

if TYPE_CHECKING:
    import jinja2

    from rlinf_isaac.ground.events import EpisodeRow


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

    @property
    def kinds(self) -> str:
        """What the page's filter may ask for: ``failed``, ``failed-<column>``, ``disagree``, ``filmed``."""
        failed = [column for column, row in enumerate(self.episodes) if row is not None and not row.success]
        kinds = [*(["failed"] if failed else []), *(f"failed-{column}" for column in failed)]
        return " ".join(kinds + ["disagree"] * self.disagree + ["filmed"] * self.filmed)


@dataclass(frozen=True)
class Group:
    """Checkpoints whose episodes are paired, and their seeds, disagreements first."""

    members: tuple[Standing, ...]
    seeds: tuple[SeedRow, ...]

    @property
    def filmed(self) -> tuple[SeedRow, ...]:
        """The seeds with videos."""
        return tuple(row for row in self.seeds if row.filmed)


@dataclass(frozen=True)
class Places:
    """Where the page finds what it shows besides itself.

    Attributes:
        server: address of the MLflow server, for links to the runs; empty: that which the page itself is shown by.
        files: (run, artifact path of a video) -> its place beside the page; None: they are artifacts on the server.
        posters: the same for the still images of the videos.
    """

    server: str = ""
    files: dict[tuple[str, str], str] | None = None
    posters: dict[tuple[str, str], str] = field(default_factory=dict)


def render(comparison: Comparison, title: str, origin: Origin | None = None, places: Places | None = None) -> str:
    """Render the page. Runs appear in the addresses of videos as in `Evaluation.run` (an id or a placeholder).

    Args:
        comparison: what is shown.
        title: of the page.
        origin: where evaluations come from that are just being recorded.
        places: where videos and runs are found; by default, on the server that shows the page.
    """
    return _template().render(
        title=title,
        comparison=comparison,
        rank_note=RANK_NOTE,
        task_rates=task_rates(comparison),
        task_notes=task_notes(comparison),
        tie_notes=tie_notes(comparison),
        differences=[difference_of(comparison, pair) for pair in comparison.pairs],
        differences_note=NOTE,
        several_sweeps=len({standing.evaluation.sweep for standing in comparison.standings}) > 1,
        facts=_facts(comparison),
        funnel=funnel(comparison),
        origins=(found := origins(comparison, origin)),
        days=sorted({each.began[:10] for each in found} - {""}),
        plot=plot_of(comparison.standings),
        robustness=robustness_of(comparison.standings),
        robustness_method=METHOD,
        arms=arm_table(comparison.arms),
        arm_pairs=arm_pairs(comparison.arms),
        audits=audits_of(comparison.standings),
        matrix=_matrix(comparison),
        groups=[_group(comparison, indices) for indices in comparison.groups],
        places=places or Places(),
    )


def p_text(p_value: float) -> str:
    """``= 0.043``, with three decimals; ``= 1`` or ``< 0.001``."""
    return "< 0.001" if p_value < 0.001 else "= 1" if p_value >= 0.9995 else f"= {p_value:.3f}"


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mlflow_project.comparison", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["figure"] = figure
    environment.filters["p"] = p_text
    environment.filters["points"] = points
    environment.filters["ending_title"] = ending_title
    environment.filters["ending"] = lambda outcome: outcome if outcome in ("success", TIMEOUT) else "drop"
    return environment.get_template("report.html.jinja")


def _facts(comparison: Comparison) -> list[str]:
    """Task, prompt, backend and how the policy was run, as far as they are the same for all checkpoints."""
    settings = [standing.evaluation.settings for standing in comparison.standings]
    environments = [setting.get("environment", {}) for setting in settings]
    facts = [environments[0].get(key) for key in ("task", "prompt", "backend") if _same(environments, key)]
    words = {"action_chunk": "action chunk", "denoise_steps": "denoise steps", "device": "device"}
    known = [key for key in words if key in settings[0] and _same(settings, key)]
    facts += [f"{words[key]} {settings[0][key]}" for key in known]
    return [str(fact) for fact in facts if fact is not None]


def _same(mappings: Sequence[Mapping[str, Any]], key: str) -> bool:
    return all(mapping.get(key) == mappings[0].get(key) for mapping in mappings)


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
    title += "; this does not show that one is better" if state == "equal" else ""
    return Cell(state, wins, losses, p_text(pair.adjusted), title)


def _group(comparison: Comparison, indices: Sequence[int]) -> Group:
    members = tuple(comparison.standings[i] for i in indices)
    episodes = [{(row.task, row.seed): row for row in member.evaluation.rows} for member in members]
    seeds = [
        SeedRow(seed, tuple(rows.get((task, seed)) for rows in episodes), task)
        for task, seed in sorted(set().union(*episodes))
    ]
    return Group(members, tuple(sorted(seeds, key=lambda row: not row.disagree)))
