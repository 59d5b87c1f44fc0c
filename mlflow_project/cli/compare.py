"""`compare`: the checkpoints of one or several sweeps against each other."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, verb_session
from mlflow_project.vocabulary import COMPARISON_PAGE
from rlinf_isaac.ground.probe import check_output

EXAMPLE = """\b
Example:
  rlinf-isaac compare 0123456789abcdef0123456789abcdef
  rlinf-isaac compare RUN_ID 'http://127.0.0.1:5000/#/experiments/1/runs/RUN_ID'
  mlflow run . -e compare -P runs=RUN_ID,RUN_ID"""


@click.command("compare", epilog=EXAMPLE)
@click.argument("runs", metavar="SWEEP_RUN...", nargs=-1, required=True)
@options.output
@options.tracking
def command(runs: tuple[str, ...], output: Path) -> None:
    """Compare all evaluated checkpoints of one or several sweeps.

    SWEEP_RUN is a run id, or a link of the MLflow UI that holds one: of eval, rl, main, or of one evaluated checkpoint.
    Episodes are paired by seed. Across sweeps that takes the same task, environment, assets, seeds, action chunk and
    prompt; else only the rates are compared, and it is said why. The page, the tables and the link that sorts the
    checkpoints go into a run of their own. `eval` ends with the same comparison of its own checkpoints.
    """
    with verb_session():
        from mlflow_project.cli._summary import print_comparison, print_links
        from mlflow_project.tracked import compare as tracked

        with preflight() as findings:
            findings.add(check_output(output))
            evaluations = tracked.check(findings, runs=runs)
        compared = tracked.run(evaluations, output)
        print_comparison(compared.comparison)
        print_links(compared.run, COMPARISON_PAGE)
