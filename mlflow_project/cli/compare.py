"""`compare`: the checkpoints of one or several sweeps against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, preflight, verb_session
from mlflow_project.vocabulary import COMPARISON_PAGE
from rlinf_isaac.ground.probe import check_output

if TYPE_CHECKING:
    from mlflow_project.comparison.compare import Comparison
    from mlflow_project.comparison.evaluations import Evaluation
    from mlflow_project.tracking.runs import TrackedRun
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac compare 0123456789abcdef0123456789abcdef
  rlinf-isaac compare RUN_ID 'http://127.0.0.1:5000/#/experiments/1/runs/RUN_ID'
  mlflow run . -e compare -P runs=RUN_ID,RUN_ID"""


@click.command("compare", epilog=EXAMPLE)
@click.argument("runs", metavar="SWEEP_RUN...", nargs=-1, required=True)
@options.output
def command(runs: tuple[str, ...], output: Path) -> None:
    """Compare all evaluated checkpoints of one or several sweeps.

    SWEEP_RUN is a run id, or a link of the MLflow UI that holds one: of eval, rl, main, or of one evaluated checkpoint.
    Episodes are paired by seed. Across sweeps that takes the same task, environment, assets, seeds, action chunk and
    prompt; else only the rates are compared, and it is said why. The page, the tables and the link that sorts the
    checkpoints go into a run of their own. `eval` ends with the same comparison of its own checkpoints.
    """
    with verb_session():
        with preflight() as findings:
            findings.add(check_output(output))
            evaluations = check(findings, runs=runs)
        run(evaluations, output)


def check(findings: Findings, *, runs: tuple[str, ...]) -> list[Evaluation]:
    """The evaluations of these runs, read from the store; none where `findings` has errors."""
    from mlflow_project.comparison.evaluations import read_evaluations, run_id_in
    from mlflow_project.tracking.store import existing_store

    ids = []
    for text in options.words(" ".join(runs)):
        with findings.collect():
            ids.append(run_id_in(text))
    with findings.collect():
        client = existing_store()
        return read_evaluations(client, ids) if ids else []
    return []


def run(evaluations: list[Evaluation], output: Path) -> Comparison:
    """Compare in a tracked run of its own; prints the comparison and returns it."""
    from mlflow_project.cli._summary import print_comparison, print_links
    from mlflow_project.lineage.provenance import provenance_tags
    from mlflow_project.tracking.runs import tracked_run

    title = " and ".join(dict.fromkeys(each.sweep_name for each in evaluations))
    with tracked_run("compare", output=output, name=f"compare {title}", tags=provenance_tags(PROJECT)) as tracked:
        comparison = record(evaluations, tracked, title)
    print_comparison(comparison)
    print_links(tracked, COMPARISON_PAGE)
    return comparison


def record(evaluations: list[Evaluation], tracked: TrackedRun, title: str) -> Comparison:
    """Compare, and record page, tables, description and saved view in a run that is there already."""
    from mlflow_project.comparison.compare import compare
    from mlflow_project.recorders.comparison_recorder import record_comparison, save_comparison_view

    comparison = compare(evaluations)
    compared = [each.evaluation for each in comparison.standings]
    tracked.recorder.tags({"compared.sweeps": " ".join(dict.fromkeys(each.sweep for each in compared))})
    save_comparison_view(tracked.recorder, [each.run for each in compared])
    record_comparison(tracked.recorder, comparison, title)
    return comparison
