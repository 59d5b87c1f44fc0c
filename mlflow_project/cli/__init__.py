"""The command line: one verb = one file here = one MLproject entry point. A verb is imported when it is called."""

from __future__ import annotations

import difflib
import importlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from rlinf_isaac.ground.scratch import own_directory

VERBS = (
    "main",
    "task",
    "demos",
    "dataset",
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
    "push",
    "ingest",
    "isaaclab",
    "sync",
    "clean",
    "ui",
    "ls",
    "status",
    "watch",
)
TERMINAL_VERBS = ("ui", "ls", "status", "watch")
"""Verbs that look at runs and make none: they are no entry points of MLproject, as `mlflow run` would make a run."""


class VerbGroup(click.Group):
    """Finds a verb's command in the module of its name; ``norm-stats`` is accepted for ``norm_stats``.

    What click says of options that it refuses goes to the terminal by itself, so it is made safe here.
    """

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        with _safe_messages():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        with _safe_messages():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which one uses them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb, or None."""
        name = cmd_name.replace("-", "_")
        return importlib.import_module(f"mlflow_project.cli.{name}").command if name in VERBS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As `click.Group.resolve_command`, and proposes a verb for one that is misspelt. (click proposes commands that
        are registered, and these are not before they are called.)"""
        name = args[0]
        near = difflib.get_close_matches(name.replace("-", "_"), VERBS, n=1)
        if near and near[0] != name.replace("-", "_"):
            ctx.fail(f"No such command {name!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)


@contextmanager
def _safe_messages() -> Iterator[None]:
    """Spell out what would act on a terminal in the messages of click."""
    try:
        yield
    except click.ClickException as error:
        from mlflow_project.tracking.terminal import escaped

        message = error.format_message()
        if escaped(message, lines=True) == message:
            raise
        raise click.UsageError(escaped(message), getattr(error, "ctx", None)) from None


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rlinf-isaac")
@click.pass_context
def cli(context: click.Context) -> None:
    """Post-train pi0 / pi0.5 for robot tasks, tracked in MLflow.

    \b
    rlinf-isaac main                  # the whole path on the embedded default, minutes on a laptop
    rlinf-isaac VERB --help           # every verb shows an example

    Each verb is also an MLflow entry point: mlflow run . -e VERB -P option=value
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that is not UTF-8, a file name that is not
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    context.with_resource(own_directory())
