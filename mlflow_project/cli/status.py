"""`status`: what runs, what has ended and what has died, from the journals on this disk."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import print_json, stdout, verb_session
from mlflow_project.tracking.terminal import escaped

if TYPE_CHECKING:
    from mlflow_project.watching.status import Status

EXAMPLE = """\b
Example:
  rlinf-isaac status
  rlinf-isaac status 0123456789abcdef0123456789abcdef
  rlinf-isaac status --json"""


@click.command("status", epilog=EXAMPLE)
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--json", is_flag=True, help="Print JSON.")
@options.output
def command(run: str | None, json: bool, output: Path) -> None:
    """Say of a verb whether it runs, how far and how fast it is, its last checkpoint and its last success.

    RUN is as in `watch`. Without it, every verb on this machine that runs or has died is named, and the newest one
    that has ended. Exit code 1 if the verb that was asked for has failed, was killed or has died.
    """
    with verb_session():
        from mlflow_project.watching.find import find_journal
        from mlflow_project.watching.journals import JournalView
        from mlflow_project.watching.status import current, status_of

        found = current(output) if run is None else [status_of(JournalView(find_journal(run, output)))]
        if json:
            print_json([_as_json(each) for each in found])
        elif not found:
            stdout.print("no verb has run on this machine lately")
        for number, each in enumerate([] if json else found):
            if number:
                stdout.print()
            _show(each)
        if run is not None and found[0].state in ("failed", "killed", "died"):
            raise SystemExit(1)


def _show(status: Status) -> None:
    from mlflow_project.watching.frame import COLOURS

    root = status.root
    title = root.name if root else status.view.header.verb
    state = (status.state, COLOURS.get(status.state, "bold yellow"))
    stdout.print(Text.assemble((escaped(title), "bold"), "  ", state))
    for name, value in _rows(status):
        if value:
            stdout.print(Text.assemble((f"  {name:<12} ", "dim"), escaped(value)))


def _rows(status: Status) -> list[tuple[str, str]]:
    from mlflow_project.tracking.pace import amount, spell_rate, spell_time

    life, root = status.life, status.root
    running = status.state == "running"
    sign = f"last sign of life {spell_time(time.time() - status.last_sign)} ago"
    rows = [
        ("process", f"{status.pid} on {life.host if life else 'this machine'}, {sign}" if running else ""),
        ("ended", "" if running else f"{sign}, after {spell_time(status.seconds)}"),
        ("reason", root.failure if root else ""),
        ("resume", "its process is gone; the same command resumes it" if status.state == "died" else ""),
        ("stage", life.stage if life and running else ""),
    ]
    for work in (life.work if life else [])[-1:]:
        words = [f"{work.label} {amount(work.done, work.unit)}/{amount(work.total, work.unit)}"]
        if work.rate and running and work.done < work.total:
            words.append(spell_rate(work.rate, work.unit))
        if work.left_s is not None and running:
            words.append(f"eta {spell_time(max(0.0, work.left_s - (time.time() - work.seen)))}")
        rows.append(("progress", "  ".join([*words, *filter(None, [work.note])])))
    if status.saved is not None:
        step, when = status.saved
        rows.append(("checkpoint", f"step {step}, {spell_time(max(0.0, time.time() - when))} ago"))
    rows.append(("success", str(status.success) if status.success else ""))
    missing = f"{status.unsent} bytes are not in MLflow yet" if status.lags else ""
    return [
        *rows,
        ("run", status.run_id or "MLflow does not have it yet"),
        ("records", missing),
        ("journal", str(status.view.path)),
    ]


def _as_json(status: Status) -> dict[str, Any]:
    life, root, success = status.life, status.root, status.success
    work = life.work[-1] if life and life.work else None
    return {
        "name": root.name if root else None,
        "verb": status.view.header.verb,
        "state": status.state,
        "run_id": status.run_id,
        "pid": status.pid,
        "host": life.host if life else None,
        "seconds": round(status.seconds, 1),
        "last_sign": status.last_sign,
        "reason": (root.failure or None) if root else None,
        "stage": (life.stage or None) if life else None,
        "progress": work and {key: getattr(work, key) for key in ("label", "done", "total", "rate", "left_s")},
        "checkpoint": None if status.saved is None else {"step": status.saved[0], "time": status.saved[1]},
        "success": success and asdict(success),
        "unsent_bytes": status.unsent,
        "journal": str(status.view.path),
        "tracking_uri": status.view.header.tracking_uri,
    }
