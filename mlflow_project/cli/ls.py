"""`ls`: the runs and checkpoints of a store, as a table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import print_json, print_wide, stderr, stdout, verb_session
from mlflow_project.cli._trouble import trouble_of
from mlflow_project.tracking.terminal import escaped

if TYPE_CHECKING:
    from mlflow_project.watching.listing import Checkpoint, Facts, Rate, Row

EXAMPLE = """\b
Example:
  rlinf-isaac ls
  rlinf-isaac ls --limit 100 --json
  MLFLOW_TRACKING_URI=http://tracking:5000 rlinf-isaac ls"""


@click.command("ls", epilog=EXAMPLE)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many runs, the newest.")
@click.option("--json", is_flag=True, help="Print JSON.")
@options.output
def command(limit: int, json: bool, output: Path) -> None:
    """List runs and, below each, the checkpoints that it has made or evaluated, with success, size and place.

    The store is the one that MLFLOW_TRACKING_URI names, else mlflow.db here or in the nearest directory above, else the
    one that was used last. While it does not answer, the journals on this disk say what there is.
    """
    with verb_session():
        from mlflow_project.watching.listing import rows

        facts, source = _facts(output)
        found = rows(facts, limit)
        if json:
            print_json({"store": source, "runs": [row.as_dict() for row in found]})
        elif not found:
            stdout.print(f"no runs of rlinf-isaac in {source}")
        else:
            stdout.print(f"Runs in {source}")
            print_wide(_table(found))


def _facts(output: Path) -> tuple[list[Facts], str]:
    """What the store says, or else the journals; and which of them it was."""
    from mlflow_project.tracking.redact import without_credentials
    from mlflow_project.tracking.store import is_missing, nearest_store
    from mlflow_project.watching.find import outputs
    from mlflow_project.watching.journals import journals_in, open_journal
    from mlflow_project.watching.listing import facts_of_journals, facts_of_store, with_dead

    views = [view for place in outputs(output) for path in journals_in(place) if (view := open_journal(path))]
    uri = nearest_store()
    why = f"there is no MLflow store at {without_credentials(uri)}"
    if not is_missing(uri):
        from mlflow_project.tracking.mlflow_environment import prepare_environment

        prepare_environment()
        from mlflow import MlflowClient

        try:
            return with_dead(facts_of_store(MlflowClient(uri)), views), without_credentials(uri)
        except Exception as error:
            if trouble_of(error) is None:
                raise
            why = f"MLflow at {without_credentials(uri)} does not answer ({str(error)[:200]})"
    if views:
        stderr.print(f"{why}; this is what the journals on this disk say")
    return facts_of_journals(views), "the journals on this disk" if views else without_credentials(uri)


def _table(found: list[Row]) -> Table:
    from mlflow_project.watching.frame import COLOURS

    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("run", no_wrap=True, overflow="ellipsis")
    table.add_column("status", no_wrap=True)
    table.add_column("when", no_wrap=True)
    table.add_column("success", no_wrap=True)
    table.add_column("size", no_wrap=True, justify="right")
    table.add_column("dataset or task", no_wrap=True, overflow="ellipsis")
    table.add_column("where", overflow="fold")
    for row in found:
        style = COLOURS.get(row.status, "bold yellow")
        data = escaped(row.dataset)
        name = Text(escaped(row.name), "bold")
        table.add_row(
            name, Text(row.status, style), _when(row), _success(row.success), _size(row.size), data, Text(row.id, "dim")
        )
        for each in row.checkpoints:
            where, name = Text(escaped(_place(each)), "dim"), Text(f"  {escaped(each.name)}")
            table.add_row(name, "", "", _success(each.success), _size(each.size), "", where)
    return table


def _when(row: Row) -> str:
    from mlflow_project.tracking.pace import spell_time

    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.began))
    return began if row.seconds is None else f"{began}, {spell_time(row.seconds)}"


def _success(rate: Rate | None) -> str:
    if rate is None:
        return ""
    return f"{100 * rate.rate:.0f} % ({100 * rate.low:.0f} .. {100 * rate.high:.0f}), n = {rate.episodes}"


def _size(size: int | None) -> str:
    return "" if size is None else decimal(size)


def _place(checkpoint: Checkpoint) -> str:
    """Its directory, relative to the working directory where it lies below."""
    if checkpoint.where is None or checkpoint.size is None:
        return "" if checkpoint.where is None else f"not here: {checkpoint.where}"
    path, here = Path(checkpoint.where), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
