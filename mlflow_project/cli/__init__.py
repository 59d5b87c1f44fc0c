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
from click.shell_completion import CompletionItem

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
    "config",
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
    "plan",
    "status",
    "watch",
    "completion",
)
TERMINAL_VERBS = ("ui", "ls", "plan", "status", "watch", "completion")
"""Verbs that make no run: they are no entry points of MLproject, as `mlflow run` would make one."""
GROUPS: dict[str, dict[str, str]] = {
    "Run": {
        "main": "The whole path, from demonstrations to a champion, as one run.",
        "demos": "Record demonstrations of a scripted expert.",
        "dataset": "Import recordings as a LeRobot dataset.",
        "norm_stats": "Compute or check the norm stats of a dataset.",
        "sft": "Fine-tune pi0 / pi0.5 on a LeRobot dataset.",
        "eval": "Evaluate checkpoints on the same seeds.",
        "rl": "Improve checkpoints by reinforcement learning.",
    },
    "Inspect": {
        "doctor": "Check a job, a dataset, a task or this machine; starts nothing.",
        "config": "Show the values of a job, or how two jobs differ.",
        "ls": "List the runs of a store, with their success and their size.",
        "status": "Say what runs, has ended or has died, and how far it is.",
        "watch": "Follow a training in the terminal: curves, success, GPU.",
        "ui": "Open MLflow's UI on the right store and view.",
        "compare": "Compare evaluated checkpoints, paired by seed.",
        "plan": "Say how many episodes show a difference.",
        "lineage": "Show what a checkpoint came from, and where the chain breaks.",
    },
    "Ship": {
        "bundle": "Make, verify or show a checkpoint bundle.",
        "convert": "Convert foreign weights to a verified bundle.",
        "promote": "Make the best checkpoint the champion, if it passes the gate.",
        "serve": "Serve a checkpoint to robots, by OpenPI's protocol.",
        "push": "Upload a checkpoint with its evidence to the Hugging Face Hub.",
    },
    "Environment": {
        "task": "Begin the file that describes a task, or show one.",
        "isaaclab": "Make the environment that the real IsaacLab runs in.",
        "ingest": "Record in MLflow what RLinf has logged.",
        "sync": "Upload what a tracking server has missed.",
        "clean": "List, and remove, checkpoints that need not be kept.",
        "completion": "Print the script that completes commands in a shell.",
    },
}
"""Heading -> verb -> what it does, in a line of the help. A verb that is missing here is listed with its own words."""
UNKNOWN_OPTIONS = {
    ("--resume", "--continue", "--restore"): "Resuming is automatic: the same command goes on where it stopped.",
    ("--restart", "--force", "--overwrite"): "Finished work is reused; to begin anew, choose another --output.",
    ("--learning-rate", "--learning_rate"): "It is --lr.",
    ("--checkpoint", "--ckpt", "--policy", "--model"): "It is --ckpt-root for eval and rl, --base for sft.",
    ("--epochs", "--max-steps", "--num-steps"): "It is --steps, or --iterations for rl.",
    ("--gpus", "--gpu", "--nproc"): "It is --device cuda; several GPUs: --overrides compute.num_processes=N.",
    ("--config", "--yaml"): "It is --preset FILE.yaml; --overrides sets single keys, and `config show` prints them.",
    ("--out", "--output-dir", "--save-dir"): "It is --output.",
    ("--name",): "It is --run-name.",
    ("--tags",): "It is --tag KEY=VALUE, once for each.",
    ("--wandb", "--tensorboard"): "Runs are recorded in MLflow; --report-to tensorboard,wandb tells these as well.",
}
"""What people call an option, who come from elsewhere -> what it is here."""


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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs under their headings; a verb is only imported if it has no line in `GROUPS`."""
        known = {verb for verbs in GROUPS.values() for verb in verbs}
        others = {verb: self._own_words(ctx, verb) for verb in self.list_commands(ctx) if verb not in known}
        width = max(map(len, (*known, *others)))
        for heading, verbs in (*GROUPS.items(), *({"More": others}.items() if others else ())):
            with formatter.section(heading):
                formatter.write_dl([(verb.ljust(width), words) for verb, words in verbs.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs that begin so, and the options of the group."""
        words = {verb: line for verbs in GROUPS.values() for verb, line in verbs.items()}
        verbs = [CompletionItem(verb, help=words.get(verb)) for verb in VERBS if verb.startswith(incomplete)]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def _own_words(self, ctx: click.Context, verb: str) -> str:
        command = self.get_command(ctx, verb)
        return "" if command is None else command.get_short_help_str(limit=200)

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
    except click.NoSuchOption as error:
        hint = next((hint for names, hint in UNKNOWN_OPTIONS.items() if error.option_name in names), None)
        if hint is None:
            raise
        raise click.UsageError(f"No such option {error.option_name!r}. {hint}", error.ctx) from None
    except click.ClickException as error:
        from mlflow_project.tracking.terminal import escaped

        message = error.format_message()
        if escaped(message, lines=True) == message:
            raise
        raise click.UsageError(escaped(message), getattr(error, "ctx", None)) from None


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="rlinf-isaac")
@click.pass_context
def cli(context: click.Context) -> None:
    """Post-train pi0 / pi0.5 for robot tasks, tracked in MLflow.

    \b
    rlinf-isaac main                          # the whole path on the embedded default, minutes on a laptop
    rlinf-isaac sft --preset pi05 --help      # every verb shows an example, and the defaults of a preset
    rlinf-isaac config show sft --preset pi05 # all values that a job would have

    Each verb is also an MLflow entry point: mlflow run . -e VERB -P option=value
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that is not UTF-8, a file name that is not
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    context.with_resource(own_directory())
