"""How the plan of a conversion looks on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.filesize import decimal
from rich.table import Table

from mlflow_project.cli._session import print_wide, stdout
from mlflow_project.tracking.terminal import escaped
from rlinf_isaac.checkpoint.convert import ConversionJob
from rlinf_isaac.checkpoint.convert.tensors import shown

_SHOWN = 6


def show(job: ConversionJob) -> None:
    """Print a table of the files to write, and what happens to names, dtypes and tied tensors on the way."""
    plan, weights = job.plan, job.stored.weights
    for file in weights.files if len(weights.files) < _SHOWN else (weights.directory,):
        stdout.print(f"input        {file} ({weights.format}, {decimal(weights.size)})")
    for note in (*job.notes, *job.stored.notes):
        stdout.print(f"             {note}")
    table = Table(title=f"To be written to {escaped(str(job.output))}", title_justify="left")
    table.add_column("file")
    for column in ("tensors", "size", "dtypes"):
        table.add_column(column, justify="right")
    for planned in plan.files:
        dtypes = sorted({tensor.dtype for tensor in planned.tensors})
        table.add_row(planned.name, str(len(planned.tensors)), decimal(planned.nbytes), " ".join(dtypes))
    if len(plan.files) > 1:
        table.add_section()
        table.add_row("all", str(len(plan.tensors)), decimal(plan.nbytes), "")
    print_wide(table)
    summary = plan.summary()
    _line("state dict", [plan.state_dict] if plan.state_dict else [])
    _line("stripped", plan.stripped)
    _line("renamed", [f"{summary['renamed']} tensors"] if summary["renamed"] else [])
    _line("cast", [f"{count} {kind}" for kind, count in summary["cast"].items()])
    _line("not cast", [f"{count} {kind}, whose scales lie elsewhere" for kind, count in sorted(plan.not_cast.items())])
    _line("tied", [f"{name} is {kept}" for name, kept in sorted(plan.ties.items())])
    _line("overlapping", [" and ".join(names) for names in plan.overlapping])
    _line("dropped", plan.dropped)
    _line("other", [f"{plan.others} entries that are no tensors are left out"] if plan.others else [])


def _line(title: str, items: Sequence[str]) -> None:
    for index, item in enumerate(items[:_SHOWN]):
        stdout.print(f"{title if index == 0 else '':<13}{shown(item)}")
    if len(items) > _SHOWN:
        stdout.print(f"{'':<13}and {len(items) - _SHOWN} more")
