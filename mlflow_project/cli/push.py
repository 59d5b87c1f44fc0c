"""`push`: a checkpoint on the Hugging Face Hub, with a model card made of its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, stdout, verb_session
from rlinf_isaac.ground.probe import check_output

EXAMPLE = """\b
Example:
  rlinf-isaac push models:/stack-cube@champion hf://ORG/NAME --dry-run true
  rlinf-isaac push RUN_ID hf://ORG/NAME --private --license apache-2.0
  rlinf-isaac push CHECKPOINTS/1200 hf://ORG/NAME --revision step-1200
  mlflow run . -e push -P subject=RUN_ID -P repo=hf://ORG/NAME"""


@click.command("push", epilog=EXAMPLE)
@click.argument("subject")
@click.argument("repo")
@options.option("--revision", "Branch that gets the commit, and is made where it is missing; auto: main.")
@options.flag("--private", "Make the repository private, if it is created.")
@options.option(
    "--license", "The Hub's identifier of the weights' licence, e.g. apache-2.0; none: the card has none.", "none"
)
@options.flag("--without-evidence", "Upload a checkpoint that was never evaluated; its card says so.")
@options.flag("--optimiser-state", "Upload the optimiser's state of this step as well.")
@options.flag("--dry-run", "Print the card and the files, and contact nobody.")
@options.output
def command(dry_run: bool, output: Path, **settings: Any) -> None:
    """Upload SUBJECT to REPO on the Hugging Face Hub, with a model card made of what is recorded.

    SUBJECT is a run of eval, rl or main (its best checkpoint), a checkpoint's directory, models:/name@alias or m-...;
    REPO is hf://org/name. The card has the success rate with its interval, seeds and rivals, the chain of digests, the
    norm stats, and commands to paste. Nothing in it is a default: what nobody recorded is `not known`. Login, rights
    and the bundle's bytes are checked first, and all files come in one commit. HF_ENDPOINT names another hub.
    """
    with verb_session():
        from mlflow_project.tracked import push as tracked

        with preflight() as findings:
            findings.add(check_output(output))
            job = tracked.check(findings, dry_run=dry_run, **settings)
        assert job is not None
        if dry_run:
            stdout.print(job.card, lines=True)
            for name, file in {"README.md": None, **job.files}.items():
                stdout.print(f"would upload  {name}" + (f"  {file.stat().st_size:,} bytes" if file else ""))
            return
        uri = tracked.run(job, output, stdout.print)
        stdout.print(f"pushed       {uri}")
        stdout.print(f"serve it     rlinf-isaac serve {uri}")
