"""`clean`: what lies in a directory of results, what of it may go, and why the rest stays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.filesize import decimal
from rich.table import Table

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, print_json, print_wide, show_problem, stdout, verb_session
from mlflow_project.tracking.terminal import escaped
from rlinf_isaac.config.keep import ALL, WORDS, Keep, parse_keep
from rlinf_isaac.ground.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_project.retention.plan import Item

EXAMPLE = """\b
Example:
  rlinf-isaac clean
  rlinf-isaac clean --keep last:2,best:1
  rlinf-isaac clean /results --keep last:1,every:10000 --yes
  mlflow run . -e clean -P directory=/results -P keep=last:2,best:1"""


@click.command("clean", epilog=EXAMPLE)
@click.argument("directory", type=click.Path(path_type=Path), default=Path("result/isaaclab_openpi"))
@options.option("--keep", "Checkpoints of each training that stay, e.g. 'last:2,best:1,every:10000'.", ALL)
@options.flag("--yes", "Remove what does not stay. Without it nothing is removed.")
@options.flag("--dry-run", "Remove nothing, as without --yes.")
@options.flag("--without-store", "Go on although a store does not say what is registered there.")
@options.flag("--json", "Print one JSON object instead of text.")
def command(directory: Path, keep: str, yes: bool, dry_run: bool, without_store: bool, json: bool) -> None:
    """List the checkpoints and results below DIRECTORY, and free space.

    A checkpoint stays if it is registered (any version, with or without an alias), if something was trained from it, if
    a process works with it, if its training would go on from it, if MLflow does not have its files yet, or if --keep
    holds it. What killed processes have left goes in any case. Results of evaluations always stay. Nothing goes without
    --yes. What goes is written to removed.jsonl of its training.
    """
    with verb_session():
        with preflight() as findings:
            rule = Keep(all=True)
            try:
                rule = parse_keep(keep)
            except ValueError:
                findings.add([Problem("bad-value", f"--keep is {keep}", f"set it to {WORDS}")])
            if not directory.is_dir():
                cause = f"{directory} is no directory"
                findings.add([Problem("missing-results", cause, "name the --output of the jobs, or a directory in it")])
            findings.raise_errors()
            from mlflow_project.retention import inventory, plan

            found = inventory.take(directory)
            claims, silent = plan.ask_stores(plan.stores_of(found), found.bundles)
            if silent and not without_store:
                findings.add(silent)
        items = plan.plan(found, rule, claims)
        removed = plan.carry_out(items) if yes and not dry_run else []
        if json:
            freed = sum(item.size for item in removed)
            report = {"items": [item.as_dict() | {"removed": item in removed} for item in items], "bytes_freed": freed}
            print_json(report | {"stores_not_asked": [problem.cause for problem in silent]})
            return
        for problem in silent:
            show_problem(Problem(problem.code, problem.cause, "it was not asked, as --without-store says", "warning"))
        _show(directory, items, removed, acted=yes and not dry_run)


def _show(root: Path, items: Sequence[Item], removed: Sequence[Item], *, acted: bool) -> None:
    table = Table(title=f"Below {escaped(str(root))}", title_justify="left")
    for name, justify in (("", "left"), ("what", "left"), ("size", "right"), ("age", "right"), ("because", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for item in items:
        fate = "stays" if item.stays else "removed" if item in removed else "still used" if acted else "would go"
        name = escaped(str(item.path.relative_to(root)))
        table.add_row(fate, name, decimal(item.size), _age(item.as_dict()["age_s"]), escaped(item.why))
    if items:
        print_wide(table)
    going = removed if acted else [item for item in items if not item.stays]
    size, all_of_it = (decimal(sum(item.size for item in those)) for those in (going, items))
    if acted:
        stdout.print(f"Removed {len(going)} of {len(items)}: {size} of {all_of_it} are free now.")
    else:
        end = "; --yes removes them." if going else "."
        stdout.print(f"{len(going)} of {len(items)} would go: {size} of {all_of_it}. Nothing was removed{end}")


def _age(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
