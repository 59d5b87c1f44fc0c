"""Records a comparison in a run: the HTML page, its tables, and the leaderboard as the run's description."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import mlflow_project
from mlflow_project.comparison.arms import arm_table
from mlflow_project.comparison.compare import Comparison
from mlflow_project.comparison.origin import origin_of
from mlflow_project.comparison.report import render
from mlflow_project.comparison.robustness import robustness_table
from mlflow_project.comparison.tables import episode_tables, leaderboard_markdown, pair_table, task_pair_table
from mlflow_project.lineage.provenance import git_tags
from mlflow_project.tracking import ui
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.tracking.redact import clean_urls
from mlflow_project.vocabulary import (
    COMMAND_TAG,
    COMPARISON_PAGE,
    EXPERIMENT_PLACEHOLDER,
    NOTE_TAG,
    VERDICT_TAG,
    local_run,
    run_placeholder,
)

PACKAGE = Path(mlflow_project.__file__).parent
PAIRS_FILE = "pairs.json"
TASK_PAIRS_FILE = "pairs_by_task.json"
ROBUSTNESS_FILE = "robustness.json"
ARMS_FILE = "arms.json"


def record_comparison(recorder: Recorder, comparison: Comparison, title: str) -> None:
    """Record `comparison` in the run, and replace an earlier comparison in it.

    The tables are `PAIRS_FILE`, of several tasks `TASK_PAIRS_FILE`, of varied episodes `ROBUSTNESS_FILE`, of
    arms `ARMS_FILE`, and ``paired_episodes.json``, with ``paired_episodes_2.json``, ... for further groups of paired
    checkpoints.
    """
    # Runs that are being recorded have no MLflow id yet; the page then has placeholders, which the replica fills in.
    pending = any(local_run(standing.evaluation.run) for standing in comparison.standings)
    here = origin_of(_this_process(), time.time()) if pending else None
    recorder.text(COMPARISON_PAGE, render(comparison, title, here), fill_in=pending)
    for number, rows in enumerate(episode_tables(comparison), start=1):
        recorder.table(f"paired_episodes{f'_{number}' if number > 1 else ''}.json", rows)
    if comparison.pairs:
        recorder.table(PAIRS_FILE, pair_table(comparison))
    if comparison.task_pairs:
        recorder.table(TASK_PAIRS_FILE, task_pair_table(comparison))
    if robustness := robustness_table(comparison.standings):
        recorder.table(ROBUSTNESS_FILE, robustness)
    if comparison.arms:
        recorder.table(ARMS_FILE, arm_table(comparison.arms))
    run = run_placeholder(recorder.run)
    page = ui.artifact_link("", EXPERIMENT_PLACEHOLDER, run, COMPARISON_PAGE)
    charts = ui.comparison_link("", EXPERIMENT_PLACEHOLDER, run, charts=True)
    links = f"[page with videos]({page}), [charts and animated rollouts]({charts})"
    description = leaderboard_markdown(comparison, links)
    recorder.tags({NOTE_TAG: description, VERDICT_TAG: comparison.verdict})


@cache
def _this_process() -> dict[str, str]:
    """The tags that say which code and command line are recording."""
    return git_tags(PACKAGE.parent) | {COMMAND_TAG: clean_urls(shlex.join(sys.orig_argv))}


def save_comparison_view(
    parent: Recorder,
    runs: Sequence[str] | None = None,
    *,
    columns: Sequence[str] = ui.COLUMNS,
    charts: Sequence[str] = ui.CHARTS,
) -> None:
    """Save the UI's view of the runs that `parent` compares: a flat list by success, with columns and charts.

    Args:
        parent: recorder of the run that compares; `ui.comparison_link` gives the link to its view.
        runs: MLflow ids of the compared runs; by default the runs nested in `parent`.
        columns: metrics shown as columns of the list.
        charts: metrics shown as a bar chart each.
    """
    if ui.version_is_known():
        run_id = run_placeholder(parent.run)  # the replica replaces it by MLflow's id
        search_filter = ui.nested_in(run_id) if runs is None else f"attributes.run_id IN ({', '.join(map(repr, runs))})"
        state = json.dumps(ui.comparison_view(search_filter, columns, charts), separators=(",", ":"))
        parent.experiment_tag(f"mlflow.sharedViewState.{ui.view_name(run_id)}", state)
