"""Comparison of evaluated checkpoints, as a tracked run or in one that is there already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlflow_project.comparison.arms import NamedArm, parse_arms, read_arms
from mlflow_project.comparison.compare import Comparison, compare
from mlflow_project.comparison.evaluations import Evaluation, read_evaluations, run_id_in
from mlflow_project.comparison.export import Exported, check_export
from mlflow_project.comparison.export import export as export_comparison
from mlflow_project.lineage.provenance import provenance_tags
from mlflow_project.recorders.comparison_recorder import record_comparison, save_comparison_view
from mlflow_project.tracked import PROJECT
from mlflow_project.tracked.evaluation import Swept
from mlflow_project.tracking.redact import without_credentials
from mlflow_project.tracking.runs import TrackedRun, tracked_run
from mlflow_project.tracking.store import existing_store, tracking_uri
from rlinf_isaac.jobs import options
from rlinf_isaac.preflight.findings import Findings


def check(findings: Findings, *, runs: tuple[str, ...], export: Path | None = None) -> list[Evaluation]:
    """The evaluations of these runs, read from the store; none where `findings` has errors."""
    if export is not None:
        findings.add(check_export(export))
    ids = []
    for text in options.words(" ".join(runs)):
        with findings.collect():
            ids.append(run_id_in(text))
    with findings.collect():
        client = existing_store()
        return read_evaluations(client, ids) if ids else []
    return []


def check_arms(findings: Findings, words: tuple[str, ...]) -> tuple[NamedArm, ...]:
    """The arms that these words ``NAME=RUN,RUN,...`` name; none where `findings` has errors."""
    with findings.collect():
        named = parse_arms(words)
        if named:
            client = existing_store()
            return read_arms(named, lambda text: read_evaluations(client, [run_id_in(text)]))
    return ()


def run(evaluations: list[Evaluation], output: Path, arms: tuple[NamedArm, ...] = ()) -> Swept:
    """Compare in a tracked run of its own."""
    title = " and ".join(dict.fromkeys(each.sweep_name for each in evaluations))
    with tracked_run("compare", output=output, name=f"compare {title}", tags=provenance_tags(PROJECT)) as tracked:
        comparison = record(evaluations, tracked, title, arms)
    return Swept(comparison, tracked)


def export(comparison: Comparison, directory: Path) -> Exported:
    """Write a comparison of recorded runs as a folder; links lead to the server, if the store is one."""
    title = " and ".join(dict.fromkeys(each.evaluation.sweep_name for each in comparison.standings))
    uri = tracking_uri()
    server = without_credentials(uri).rstrip("/") if uri.startswith("http") else ""
    return export_comparison(existing_store(), comparison, title, directory, server)


def record(
    evaluations: list[Evaluation], tracked: TrackedRun, title: str, arms: tuple[NamedArm, ...] = ()
) -> Comparison:
    """Compare, and record page, tables, description and saved view in a run that is there already."""
    comparison = replace(compare(evaluations), arms=arms)
    compared = [each.evaluation for each in comparison.standings]
    tracked.recorder.tags({"compared.sweeps": " ".join(dict.fromkeys(each.sweep for each in compared))})
    save_comparison_view(tracked.recorder, [each.run for each in compared])
    record_comparison(tracked.recorder, comparison, title)
    return comparison
