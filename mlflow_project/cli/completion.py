"""`completion`: the script with which a shell completes commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from mlflow_project.cli._session import verb_session
from rlinf_isaac.ground.errors import RlinfIsaacError

EXAMPLE = """\b
Example:
  eval "$(rlinf-isaac completion bash)"       # in ~/.bashrc
  eval "$(rlinf-isaac completion zsh)"        # in ~/.zshrc
  rlinf-isaac completion fish > ~/.config/fish/completions/rlinf-isaac.fish"""

PROGRAM = "rlinf-isaac"
VARIABLE = "_RLINF_ISAAC_COMPLETE"


@click.command("completion", epilog=EXAMPLE)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes verbs, options and their values in SHELL.

    Presets, tasks, engines, choices, paths and the steps of the checkpoints below --ckpt-root are completed. The script
    calls rlinf-isaac at every TAB, so it need not be printed again after an upgrade.
    """
    with verb_session():
        click.echo(script(shell))


def script(shell: str) -> str:
    """The script of a shell, as click makes it; bash has to be 4.4 or later, which is not asked here."""
    from mlflow_project.cli import cli

    kind = get_completion_class(shell)
    if kind is None:  # click has dropped the shell
        raise RlinfIsaacError(f"click has no completion for {shell}")
    completion = kind(cli, {}, PROGRAM, VARIABLE)
    return str(completion.source_template % completion.source_vars())
