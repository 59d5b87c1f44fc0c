"""`ingest`: a result directory that RLinf wrote, whoever started it, as runs."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, stdout, verb_session
from rlinf_isaac.ground.probe import check_output
from rlinf_isaac.jobs.ingest import check

EXAMPLE = """\b
Example:
  rlinf-isaac ingest --source /results/isaaclab_ppo_openpi_pi05
  mlflow run . -e ingest -P source=/results/isaaclab_ppo_openpi_pi05"""


@click.command("ingest", epilog=EXAMPLE)
@options.option("--source", "Directory that was RLinf's runner.logger.log_path.", None)
@options.output
@options.tracking
def command(source: str, output: Path) -> None:
    """Record what RLinf left in a result directory: metrics, config, videos, and a nested run per checkpoint.

    Metrics keep RLinf's names; their steps become global steps, as in the names of its checkpoints. Weights stay where
    they are; the command that makes a bundle of each is printed, and is the description of its run. A directory that is
    in the store already, unchanged, is not recorded again.
    """
    with verb_session():
        with preflight() as findings:
            findings.add(check_output(output))
            results = check(findings, source=source)
        assert results is not None
        from mlflow_project.cli._summary import print_links
        from mlflow_project.tracked import ingest as tracked

        if run := tracked.run(results, output, stdout.print):
            print_links(run)
