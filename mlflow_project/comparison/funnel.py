"""How far the episodes of each checkpoint came: the subtasks of a task, in the order in which they are reached."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_project.comparison.compare import Comparison
from mlflow_project.comparison.standings import Standing

SOLVED = "success"
"""The last stage."""


@dataclass(frozen=True)
class Stage:
    """One stage of a checkpoint: how many of `n` episodes reached it. `lost` have reached the stage before and not this
    one; None in the first stage."""

    name: str
    reached: int
    n: int
    lost: int | None

    @property
    def share(self) -> float:
        """The share of the episodes that reached it."""
        return self.reached / self.n if self.n else 0.0


@dataclass(frozen=True)
class Funnel:
    """The stages, and for each checkpoint one `Stage` of each."""

    names: tuple[str, ...]
    rows: tuple[tuple[Stage, ...], ...]


def funnel(comparison: Comparison) -> Funnel | None:
    """The funnel of a comparison; None if its episodes have no subtask flags.

    A flag does not say where it stands in the task, so the stages are ordered by how many episodes of all checkpoints
    reached them, the most first. An episode without a flag, of another task, does not count in its stage.
    """
    counts: dict[str, list[bool]] = {}
    for standing in comparison.standings:
        for row in standing.evaluation.rows:
            for flag, reached in row.subtasks.items():
                counts.setdefault(flag, []).append(reached)
    if not counts:
        return None
    names = sorted(counts, key=lambda flag: (-sum(counts[flag]) / len(counts[flag]), flag))
    return Funnel((*names, SOLVED), tuple(_stages(standing, names) for standing in comparison.standings))


def _stages(standing: Standing, names: list[str]) -> tuple[Stage, ...]:
    rows, stages = standing.evaluation.rows, []
    before: str | None = None
    for name in (*names, SOLVED):
        flags = [{**row.subtasks, SOLVED: row.success} for row in rows if name == SOLVED or name in row.subtasks]
        lost = None if before is None else sum(flag.get(before, False) and not flag[name] for flag in flags)
        stages.append(Stage(name, sum(flag[name] for flag in flags), len(flags), lost))
        before = name
    return tuple(stages)
