"""`isaaclab`: make the environment that the real IsaacLab runs in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, stdout, verb_session

if TYPE_CHECKING:
    from rlinf_isaac.envs.isaaclab.setup import SetupPlan
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac isaaclab setup --venv isaaclab-venv --dry-run
  rlinf-isaac isaaclab setup --venv isaaclab-venv --python python3.12
  rlinf-isaac demos --env isaaclab --env-python isaaclab-venv/bin/python --task stack3 --episodes 2
  mlflow run . -e isaaclab -P action=setup -P venv=/opt/isaaclab-venv"""


@click.command("isaaclab", epilog=EXAMPLE)
@click.argument("action", type=click.Choice(["setup"]))
@click.option(
    "--venv",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Directory of the virtual environment; one that is complete is only started once.",
)
@options.option("--python", "Python 3.12 to make it with; auto: python3.12.")
@options.flag("--dry-run", "Print what would be downloaded, and do nothing.")
def command(action: str, venv: Path, python: str, dry_run: bool) -> None:
    """Make the environment that the real IsaacLab runs in, which this project cannot share.

    setup: a virtual environment with IsaacLab 3.0 and the part of its requirements that the stack-cube task needs
    without Isaac Sim, a first start that compiles the kernels (minutes, once per machine), and stand-ins for NVIDIA's
    assets. It ends with the option to pass to demos, eval and rl.
    """
    with verb_session():
        with preflight() as findings:
            plan = check(findings, venv=venv, python=python)
        assert plan is not None
        run(plan, dry_run=dry_run)


def check(findings: Findings, *, venv: Path, python: str) -> SetupPlan | None:
    """Check what is there and plan the rest; None where `findings` has errors."""
    from rlinf_isaac.envs.isaaclab.setup import plan_setup

    with findings.collect():
        return plan_setup(venv, None if python == options.AUTO else python)
    return None


def run(plan: SetupPlan, *, dry_run: bool) -> None:
    """Carry the plan out, or print it."""
    from rlinf_isaac.envs.isaaclab.setup import DISK_GB, DOWNLOAD_GB, set_up

    if plan.complete:
        stdout.print(f"complete     {plan.venv} has IsaacLab")
    else:
        stdout.print(f"download     about {DOWNLOAD_GB:.1f} GB from the package index, {DISK_GB:.0f} GB on disk")
        for command in plan.commands:
            stdout.print(f"             {' '.join(command)}")
    if dry_run:
        return
    for doing in set_up(plan):
        stdout.print(f"now          {doing}")
    stdout.print(f"ready        --env isaaclab --env-python {plan.python}")
