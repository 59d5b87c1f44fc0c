"""Where the numbers of a comparison come from: for each checkpoint its run, weights and data, and the command."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mlflow_project.comparison.compare import Comparison
from mlflow_project.comparison.evaluations import Evaluation
from mlflow_project.vocabulary import COMMAND_TAG, COMMIT_TAG, DIRTY_TAG, lineage_tag

CHANGED = " with changes"
"""Follows a commit whose checkout had uncommitted changes."""


@dataclass(frozen=True)
class Origin:
    """Where one evaluation comes from; what is not known is empty.

    Attributes:
        began: date and time, in the time zone of the machine that made the page.
        commit: the git commit of the code, and `CHANGED`.
        command: the command line.
        dataset: sha256 of the training's dataset.
    """

    began: str = ""
    commit: str = ""
    command: str = ""
    dataset: str = ""


def origin_of(tags: Mapping[str, str], began_s: float) -> Origin:
    """The origin that the tags of a run tell, which began at this time (Unix seconds)."""
    commit = tags.get(COMMIT_TAG, "")
    changed = CHANGED if commit and tags.get(DIRTY_TAG) == "true" else ""
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(began_s))
    return Origin(began, commit + changed, tags.get(COMMAND_TAG, ""), tags.get(lineage_tag("dataset"), ""))


def origins(comparison: Comparison, here: Origin | None = None) -> list[Origin]:
    """The origin of each checkpoint's evaluation; `here` is that of evaluations that are being recorded."""
    return [_origin(standing.evaluation, here or Origin()) for standing in comparison.standings]


def _origin(evaluation: Evaluation, here: Origin) -> Origin:
    if evaluation.began_s is None:
        return replace(here, dataset=evaluation.tags.get(lineage_tag("dataset"), ""))
    return origin_of({**evaluation.sweep_tags, **evaluation.tags}, evaluation.began_s)
