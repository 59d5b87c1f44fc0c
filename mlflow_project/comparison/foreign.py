"""What is special about evaluations that other tools have made: when they are paired, and figures that they lack."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlflow_project.comparison.evaluations import Evaluation
from rlinf_isaac.foreign_results.model import NOT_KNOWN

INGESTED = "ingested"
"""Key in `Evaluation.settings` of what a source says of itself (`recorders.ingest_recorder`)."""


def foreign_problem(first: Evaluation, second: Evaluation) -> str | None:
    """Why the episodes of two evaluations, of which at least one is another tool's, are not paired; None if they are,
    or if both are this project's. A seed means the same only in one tool, task and setting."""
    ours, theirs = first.settings.get(INGESTED), second.settings.get(INGESTED)
    if ours is None and theirs is None:
        return None
    names = " and ".join(sorted((first.name, second.name)))
    if ours is None or theirs is None or ours["format"] != theirs["format"]:
        formats = sorted(str(each["format"]) if each else "rlinf-isaac" for each in (ours, theirs))
        return f"{names} were evaluated by different tools ({formats[0]} and {formats[1]}), whose seeds differ"
    if counted := sorted(one.name for one in (first, second) if one.settings[INGESTED]["counts_only"]):
        return f"only the numbers of successes and episodes are known of {' and '.join(counted)}, not the episodes"
    if unseeded := sorted(one.name for one in (first, second) if not one.settings[INGESTED]["seeded"]):
        return f"the seeds of the episodes of {' and '.join(unseeded)} are not known"
    tasks = [each.tasks or (each.task,) for each in (first, second)]
    if sorted(tasks[0]) != sorted(tasks[1]):
        return f"{names} were evaluated in different tasks"
    if first.sweep != second.sweep and NOT_KNOWN in (first.task, second.task):
        return f"the task of {names} is not known"
    if differing := sorted(_differing(ours["known"], theirs["known"])):
        return f"{names} differ in {', '.join(differing)}"
    seeds, others = set(first.successes), set(second.successes)
    if not (seeds <= others or others <= seeds):
        return f"{names} were evaluated on different seeds"
    return None


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)]


def figure(value: float, digits: int) -> str:
    """A number with these digits after the point; ``not known`` if it is NaN."""
    return "not known" if math.isnan(value) else f"{value:.{digits}f}"


def known(value: float) -> float | None:
    """The number, or None if it is NaN."""
    return None if math.isnan(value) else value
