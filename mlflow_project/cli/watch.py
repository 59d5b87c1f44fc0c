"""`watch`: a dashboard in the terminal, of a verb that runs or has ended."""

from __future__ import annotations

import time
from pathlib import Path

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import print_wide, stdout, verb_session

EXAMPLE = """\b
Example:
  rlinf-isaac watch
  rlinf-isaac watch 0123456789abcdef0123456789abcdef
  rlinf-isaac watch result/isaaclab_openpi/sft/tiny-0123abcd
  rlinf-isaac watch --once | head -20"""
_EVERY_S = 1.0
_COLUMNS = 100
"""Width of curves in a pipe; lines may be longer there."""


@click.command("watch", epilog=EXAMPLE)
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--once", is_flag=True, help="Print one frame and end, as always where the output is no terminal.")
@options.output
def command(run: str | None, once: bool, output: Path) -> None:
    """Show a verb at work: progress, curves, success, GPU and CPU, last lines. Ctrl-C ends the watching, not the work.

    RUN is a run id (its first digits suffice), a link of the MLflow UI, a run's name, a directory of results or a
    journal; without it the newest verb is shown. Everything is read from the journal on this disk, so it also works
    while the tracking server does not, and for verbs that have ended.
    """
    with verb_session():
        from rich.live import Live

        from mlflow_project.watching.find import find_journal
        from mlflow_project.watching.frame import frame
        from mlflow_project.watching.journals import JournalView
        from mlflow_project.watching.status import status_of

        view = JournalView(find_journal(run, output))
        status = status_of(view)
        if once or not stdout.is_terminal:
            print_wide(frame(status, stdout.width if stdout.is_terminal else _COLUMNS))
            return
        with Live(console=stdout, screen=True, auto_refresh=False) as live:
            try:
                while True:
                    view.read()
                    status = status_of(view)
                    live.update(frame(status, stdout.width, stdout.height), refresh=True)
                    if status.state != "running":
                        break
                    time.sleep(_EVERY_S)
            except KeyboardInterrupt:
                pass
        stdout.print(frame(status, stdout.width, stdout.height))
