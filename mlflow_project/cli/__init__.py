"""The command line: one verb = one file here = one MLproject entry point. A verb is imported when it is called."""

from __future__ import annotations

import importlib

import click

VERBS = (
    "main",
    "demos",
    "norm_stats",
    "sft",
    "eval",
    "rl",
    "compare",
    "doctor",
    "lineage",
    "bundle",
    "convert",
    "promote",
    "serve",
    "ingest",
    "sync",
)


class VerbGroup(click.Group):
    """Finds a verb's command in the module of its name; ``norm-stats`` is accepted for ``norm_stats``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which one uses them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb, or None."""
        name = cmd_name.replace("-", "_")
        return importlib.import_module(f"mlflow_project.cli.{name}").command if name in VERBS else None


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rlinf-isaac")
def cli() -> None:
    """Post-train pi0 / pi0.5 on Franka stack-cube, tracked in MLflow.

    \b
    rlinf-isaac main                  # the whole path on the embedded default, minutes on a laptop
    rlinf-isaac VERB --help           # every verb shows an example

    Each verb is also an MLflow entry point: mlflow run . -e VERB -P option=value
    """
