"""`compare`: the checkpoints of one or several sweeps against each other."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, verb_session
from mlflow_project.vocabulary import COMPARISON_PAGE
from rlinf_isaac.ground.probe import check_output
from rlinf_isaac.jobs.options import NONE

EXAMPLE = """\b
Example:
  rlinf-isaac compare 0123456789abcdef0123456789abcdef
  rlinf-isaac compare RUN_ID 'http://127.0.0.1:5000/#/experiments/1/runs/RUN_ID'
  rlinf-isaac compare RUN_ID --export report
  rlinf-isaac compare RUN_ID RUN_ID RUN_ID RUN_ID --arm sft=RUN_ID,RUN_ID --arm rl=RUN_ID,RUN_ID
  mlflow run . -e compare -P runs=RUN_ID,RUN_ID"""


@click.command("compare", epilog=EXAMPLE)
@click.argument("runs", metavar="SWEEP_RUN...", nargs=-1, required=True)
@options.output
@options.tracking
@options.option(
    "--export",
    "Directory for the page with its videos, pictures and data, to host or to mail; an earlier export is replaced.",
    NONE,
)
@options.arms("A recipe and the evaluations of its trainings; of each run the last checkpoint counts. Two or more.")
def command(runs: tuple[str, ...], output: Path, export: str, arm: tuple[str, ...]) -> None:
    """Compare all evaluated checkpoints of one or several sweeps.

    SWEEP_RUN is a run id, or a link of the MLflow UI that holds one: of eval, rl, main, or of one evaluated checkpoint.
    Episodes are paired by seed. Across sweeps that takes the same task, environment, assets, seeds, action chunk and
    prompt; else only the rates are compared, and it is said why. The page, the tables and the link that sorts the
    checkpoints go into a run of their own. `eval` ends with the same comparison of its own checkpoints. With --export,
    DIRECTORY/index.html is that page with its videos beside it: it plays from disk.
    """
    with verb_session():
        from mlflow_project.cli._summary import print_arms, print_comparison, print_export, print_links
        from mlflow_project.tracked import compare as tracked

        with preflight() as findings:
            findings.add(check_output(output))
            folder = None if export == NONE else Path(export)
            evaluations = tracked.check(findings, runs=runs, export=folder)
            arms = tracked.check_arms(findings, tuple(each for each in arm if each != NONE))
        compared = tracked.run(evaluations, output, arms)
        print_comparison(compared.comparison)
        print_arms(compared.comparison)
        if folder is not None:
            print_export(tracked.export(compared.comparison, folder))
        print_links(compared.run, COMPARISON_PAGE)
