"""`sync`: bring to MLflow what it does not have yet."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, stderr, stdout, verb_session
from mlflow_project.tracking.answers import told

EXAMPLE = """\b
Example:
  rlinf-isaac sync
  rlinf-isaac sync --output /results --tracking-uri http://tracking:5000
  rlinf-isaac sync --again"""
PATIENCE_S = 10.0


@click.command("sync", epilog=EXAMPLE)
@options.output
@options.option("--tracking-uri", "Where to send them; auto: where each journal belongs.")
@options.option("--report-to", "Trackers to which all journals are reported, too, e.g. tensorboard.", options.NONE)
@options.flag("--again", "Try what was refused once more, and bring all to a store that replaced another.")
def command(output: Path, tracking_uri: str, report_to: str, again: bool) -> None:
    """Replay the journals below OUTPUT: after the tracking server was down, or a verb was killed.

    Nothing is recorded twice. Runs whose process is gone are ended KILLED. Exit code 1 while something is missing or
    was refused.
    """
    with verb_session():
        from mlflow_project.reporting import names

        with preflight() as findings:
            findings.add(names.problems(report_to))
        from mlflow_project.reporting.reporter import report_rest
        from mlflow_project.tracking.sync import sync

        uri = None if tracking_uri == options.AUTO else tracking_uri
        report = sync(output / "journal", tracking_uri=uri, again=again, patience_s=PATIENCE_S)
        stdout.print(
            f"{report.journals} journals: {report.applied} records sent, {report.pending} pending, "
            f"{report.killed} dead runs ended KILLED, {len(report.busy)} journals of living processes left alone"
        )
        for refusal in report.refused:
            stderr.print(told(refusal))
        for problem in report.problems.values():
            stderr.print(problem)
        if report.refused and not again:
            stderr.print("The journals keep what was refused; --again tries it once more.")
        missing = report_rest(output / "journal", names.chosen(report_to))
        for what, why in missing.items():
            stderr.print(f"{what}: {why}")
        if missing or not report.complete:
            raise SystemExit(1)
