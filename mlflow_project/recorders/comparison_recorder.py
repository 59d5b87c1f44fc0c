"""Records a comparison in a run: the page, the tables behind it, and the leaderboard as the run's description."""

from __future__ import annotations

from mlflow_project.comparison.compare import Comparison
from mlflow_project.comparison.report import render
from mlflow_project.comparison.tables import episode_tables, leaderboard_markdown, pair_table
from mlflow_project.tracking import ui
from mlflow_project.tracking.recorder import Recorder

PAGE = "comparison.html"
PAIRS_FILE = "pairs.json"
EXPERIMENT = "{{experiment}}"


def record_comparison(recorder: Recorder, comparison: Comparison, title: str) -> None:
    """Record `comparison` in the run; what is there from an earlier one is replaced.

    Tables: `PAIRS_FILE`, and ``paired_episodes.json`` (``paired_episodes_2.json``, ... where not all are paired).
    """
    # Runs that are being recorded have no id of MLflow yet; it is filled in on the way to the server.
    pending = any(each.evaluation.run.startswith("{{run:") for each in comparison.standings)
    recorder.text(PAGE, render(comparison, title), fill_in=pending)
    for number, rows in enumerate(episode_tables(comparison), start=1):
        recorder.table(f"paired_episodes{f'_{number}' if number > 1 else ''}.json", rows)
    if comparison.pairs:
        recorder.table(PAIRS_FILE, pair_table(comparison))
    run = f"{{{{run:{recorder.run}}}}}"
    page, charts = ui.artifact_link("", EXPERIMENT, run, PAGE), ui.comparison_link("", EXPERIMENT, run, charts=True)
    links = f"[page with videos]({page}), [charts and animated rollouts]({charts})"
    description = leaderboard_markdown(comparison, links)
    recorder.tags({"mlflow.note.content": description, "comparison.verdict": comparison.verdict})
