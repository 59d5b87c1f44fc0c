"""`demos`: record scripted demonstrations as a LeRobot dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._command import JobCommand
from mlflow_project.cli._session import preflight, stdout, verb_session
from rlinf_isaac.jobs.demos import KEYS, check
from rlinf_isaac.jobs.options import interpreter

EXAMPLE = """\b
Example:
  rlinf-isaac demos --episodes 150
  mlflow run . -e demos -P task=stack3 -P episodes=50"""


@click.command("demos", cls=JobCommand, keys=KEYS, epilog=EXAMPLE)
@options.preset
@options.task
@options.option("--episodes", "Successful demonstrations to record.")
@options.option("--first-seed", "Reset seed of the first one.")
@options.env
@options.env_python
@options.renderer
@options.option("--device", "torch device, for --env isaaclab: cpu, cuda, cuda:1.")
@options.output
@options.overrides
@options.tracking
def command(output: Path, **settings: Any) -> None:
    """Record demonstrations of a scripted expert in the embedded MuJoCo environment, or in IsaacLab.

    The result is a LeRobot v2.1 dataset, with the features RLinf's IsaacLab data config expects. The same settings lead
    to the same directory, and a complete dataset is reused.
    """
    with verb_session():
        with preflight() as findings:
            config = check(findings, output=output, **settings)
        from mlflow_project.tracked import demos as tracked

        python = interpreter(settings["env_python"])
        for root in tracked.run_all(config, output, python):
            stdout.print(f"dataset  {root}")
