"""What a verb that works for long says first: the link of its run, then a header, and in `main` the step at work."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from mlflow_project.tracking import ui
from mlflow_project.tracking.redact import without_credentials
from mlflow_project.tracking.runs import current_run
from mlflow_project.tracking.terminal import SafeConsole, escaped

_PATIENCE_S = 3.0
"""Seconds to wait for the run's id at the start, so that the link is the first line. It comes later if a server takes
longer; a server that refuses is not waited for."""
_WIDTH = 12


def say_link(console: Console | None = None, patience_s: float = _PATIENCE_S) -> None:
    """Print the link of the outermost run of this process, once, as soon as the store has the run."""
    run = current_run()
    if run is None or run.life.announced:
        return
    ids = run.uploader.ids(run.outermost, patience_s)
    if run.life.announced or (ids is None and patience_s == 0):
        return
    console = console or SafeConsole(stderr=True)
    if ids is None:
        uri = without_credentials(run.tracking_uri)
        journal = run.recorder.journal.path
        _say(console, "run", f"no link yet, as MLflow at {uri} does not answer; the records wait in the journal")
        _say(console, "", f"rlinf-isaac watch {journal}  shows it in a terminal")
    else:
        run.life.announced = True
        run_id, experiment_id = ids
        _say(console, "run", ui.run_link(ui.base_url(run.tracking_uri), experiment_id, run_id), "bold")
        if ui.serve_command(run.tracking_uri):
            _say(console, "", f"rlinf-isaac ui {run_id}     serves and opens it")
        _say(console, "", f"rlinf-isaac watch {run_id}  shows it in a terminal")


def say_header(rows: Mapping[str, str], console: Console | None = None) -> None:
    """Print what a job is, one row for each (name, value), after the link; rows without a value are left out."""
    console = console or SafeConsole(stderr=True)
    say_link(console)
    kept = [(name, value) for name, value in rows.items() if value]
    for name, value in kept:
        _say(console, name, value)
    if (run := current_run()) is not None:
        run.life.header(kept)


class Stages:
    """The steps of a verb that does several things, by name and in their order."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def begin(self, name: str, console: Console | None = None) -> None:
        """Print which step begins: ``3/6 fine-tuning``."""
        console = console or SafeConsole(stderr=True)
        say_link(console)
        text = f"{self.names.index(name) + 1}/{len(self.names)} {name}"
        console.print(Text(f"\n{text}", "bold"))
        if (run := current_run()) is not None:
            run.life.stage(text)
            run.life.line(text)


def _say(console: Console, name: str, value: str, style: str = "") -> None:
    console.print(Text.assemble((f"{name:<{_WIDTH}} ", "dim"), (escaped(value), style)), soft_wrap=True)
