"""Records a comparison in a run: the page, the tables behind it, and the leaderboard as the run's description."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mlflow_project.comparison.compare import Comparison
from mlflow_project.comparison.report import render
from mlflow_project.comparison.tables import episode_tables, leaderboard_markdown, pair_table
from mlflow_project.tracking import ui
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.vocabulary import COMPARISON_PAGE, EXPERIMENT_PLACEHOLDER, NOTE_TAG, local_run, run_placeholder

PAIRS_FILE = "pairs.json"


def record_comparison(recorder: Recorder, comparison: Comparison, title: str) -> None:
    """Record `comparison` in the run; what is there from an earlier one is replaced.

    Tables: `PAIRS_FILE`, and ``paired_episodes.json`` (``paired_episodes_2.json``, ... where not all are paired).
    """
    # Runs that are being recorded have no id of MLflow yet; it is filled in on the way to the server.
    pending = any(local_run(each.evaluation.run) for each in comparison.standings)
    recorder.text(COMPARISON_PAGE, render(comparison, title), fill_in=pending)
    for number, rows in enumerate(episode_tables(comparison), start=1):
        recorder.table(f"paired_episodes{f'_{number}' if number > 1 else ''}.json", rows)
    if comparison.pairs:
        recorder.table(PAIRS_FILE, pair_table(comparison))
    run = run_placeholder(recorder.run)
    page = ui.artifact_link("", EXPERIMENT_PLACEHOLDER, run, COMPARISON_PAGE)
    charts = ui.comparison_link("", EXPERIMENT_PLACEHOLDER, run, charts=True)
    links = f"[page with videos]({page}), [charts and animated rollouts]({charts})"
    description = leaderboard_markdown(comparison, links)
    recorder.tags({NOTE_TAG: description, "comparison.verdict": comparison.verdict})


def save_comparison_view(
    parent: Recorder,
    runs: Sequence[str] | None = None,
    *,
    columns: Sequence[str] = ui.COLUMNS,
    charts: Sequence[str] = ui.CHARTS,
) -> None:
    """Save how the runs that `parent` compares are shown: flat, sorted by success, with columns and charts.

    Args:
        parent: the link to its view is `ui.comparison_link`.
        runs: MLflow ids of the runs; those nested in `parent` when None.
        columns: metrics in the table.
        charts: metrics with a bar chart each.
    """
    if ui.version_is_known():
        run_id = run_placeholder(parent.run)  # known when it is uploaded
        chosen = ui.nested_in(run_id) if runs is None else f"attributes.run_id IN ({', '.join(map(repr, runs))})"
        state = json.dumps(ui.comparison_view(chosen, columns, charts), separators=(",", ":"))
        parent.experiment_tag(f"mlflow.sharedViewState.{ui.view_name(run_id)}", state)
