"""One frame of the dashboard that `rlinf-isaac watch` shows: state, header, progress, curves, machine, last lines."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from mlflow_project.tracking.live import Work
from mlflow_project.tracking.pace import amount, spell_rate, spell_time
from mlflow_project.tracking.terminal import escaped
from mlflow_project.vocabulary import EPISODES, SUCCESS, SUCCESS_HIGH, SUCCESS_LOW
from mlflow_project.watching.charts import bar, curve
from mlflow_project.watching.journals import Point, SeenRun
from mlflow_project.watching.machine import uses
from mlflow_project.watching.status import Status

COLOURS = {"running": "bold green", "finished": "bold cyan", "failed": "bold red", "died": "bold red"}
_CURVES = (
    ("train/loss", "loss"),
    ("heldout/success_once", "success, held-out seeds"),
    ("rollout/success_once", "success, training episodes"),
    ("val/loss", "loss, held-out episodes"),
    ("train/approx_kl", "approximate KL"),
)
"""Metrics that are drawn where a run has them, the most telling first."""
_CHART_ROWS = 6
_BARS = 20
_NAME = 13


def frame(status: Status, width: int, height: int | None = None) -> RenderableType:
    """The frame, for a terminal of this size; without a height everything is shown."""
    parts: list[RenderableType] = [_title(status)]
    used = 1
    for part in (_header(status), _progress(status), _charts(status, width), _evaluated(status), _machine(status)):
        rows = list(part)
        if rows and (height is None or used + len(rows) + 1 <= height):
            parts += [Text(""), *rows]
            used += len(rows) + 1
    left = None if height is None else max(0, height - used - 1)
    lines = _last_lines(status, 12 if left is None else left)
    if lines:
        parts += [Text(""), *(Text(line, "dim", no_wrap=True, overflow="ellipsis") for line in lines)]
    return Group(*parts)


def _title(status: Status) -> Text:
    root, life = status.root, status.life
    name = root.name if root else status.view.header.verb
    words = [(escaped(name), "bold"), ("  ", ""), (status.state, COLOURS.get(status.state, "bold yellow"))]
    words.append((f"  for {spell_time(status.seconds)}" if status.state == "running" else _ended(status), ""))
    if life and life.stage and status.state == "running":
        words.append((f"  {life.stage}", "bold"))
    if status.state == "running":
        where = f" on {life.host}" if life and life.host != socket.gethostname() else ""
        words.append((f"  pid {status.pid}{where}", "dim"))
    return Text.assemble(*words, no_wrap=True, overflow="ellipsis")


def _ended(status: Status) -> str:
    return f"  {spell_time(time.time() - status.last_sign)} ago, after {spell_time(status.seconds)}"


def _header(status: Status) -> Iterator[Text]:
    if status.root is not None and status.root.failure:
        yield _row("reason", status.root.failure)
    if status.state == "died":
        yield _row("reason", "its process is gone and has not ended its run; the same command resumes it")
    for name, value in status.life.header if status.life else ():
        yield _row(name, value)
    if status.saved is not None:
        yield _row("checkpoint", f"step {status.saved[0]}, saved {_ago(status.saved[1])}")
    if status.success is not None:
        yield _row("success", f"{status.success}, {_ago(status.success.time)}")
    if status.run_id is None:
        yield _row("records", f"MLflow does not have this run yet; all is in {status.view.path}")
    elif status.unsent and status.lags:
        yield _row("records", f"{status.unsent} bytes of the journal are not in MLflow yet")


def _progress(status: Status) -> Iterator[Text]:
    for work in (status.life.work if status.life else [])[-6:]:
        yield _work(work, running=status.state == "running")


def _work(work: Work, *, running: bool) -> Text:
    share = work.done / work.total if work.total else 1.0
    words = [f"{amount(work.done, work.unit)}/{amount(work.total, work.unit)}", f"{100 * share:.0f} %"]
    if running and work.done < work.total:
        words += [spell_rate(work.rate, work.unit)] if work.rate else []
        if work.left_s is not None:
            words.append(f"eta {spell_time(max(0.0, work.left_s - (time.time() - work.seen)))}")
    words += [work.note] if work.note else []
    return Text.assemble(
        (f"{escaped(work.label):<{_NAME}} ", "bold"),
        (bar(share, _BARS), "green"),
        ("  " + escaped("  ".join(words)), ""),
        no_wrap=True,
        overflow="ellipsis",
    )


def _charts(status: Status, width: int) -> Iterator[RenderableType]:
    """Two curves side by side, of the newest run that has each metric."""
    found: list[tuple[str, list[Point]]] = []
    for key, name in _CURVES:
        runs = [run for run in status.view.runs.values() if len(run.metrics.get(key, ())) > 1]
        if runs:
            found.append((name, _latest(runs).metrics[key]))
    found = found[: 2 if width >= 70 else 1]
    if not found:
        return
    wide = (width - 2 * (len(found) - 1)) // len(found)
    columns = [_chart(name, points, wide) for name, points in found]
    for row in zip(*columns, strict=True):
        yield Text("  ").join(row)


def _latest(runs: list[SeenRun]) -> SeenRun:
    return max(runs, key=lambda run: run.began)


def _chart(name: str, points: list[Point], width: int) -> list[Text]:
    values = [point.value for point in points]
    labels = [f"{value:.3g}" for value in (max(values), min(values))]
    margin = max(map(len, labels)) + 1
    lines = curve([(point.step, point.value) for point in points], width - margin, _CHART_ROWS)
    rows = [Text.assemble((name, "bold"), f"  {values[-1]:.4g} at {points[-1].step}")]
    for number, line in enumerate(lines):
        label = labels[0] if number == 0 else labels[1] if number == len(lines) - 1 else ""
        rows.append(Text.assemble((f"{label:>{margin - 1}} ", "dim"), (line, "cyan")))
    ends = f"{points[0].step}", f"{points[-1].step}"
    rows.append(Text(" " * margin + ends[0] + ends[1].rjust(width - margin - len(ends[0])), "dim"))
    for row in rows:
        row.truncate(width, pad=True)
    return rows


def _evaluated(status: Status) -> Iterator[Text]:
    """The evaluated checkpoints, with interval and number of episodes."""
    for run in [run for run in status.view.runs.values() if SUCCESS in run.metrics][-8:]:
        rate, low, high, count = (
            run.metrics[key][-1].value if key in run.metrics else 0.0
            for key in (SUCCESS, SUCCESS_LOW, SUCCESS_HIGH, EPISODES)
        )
        if not count:
            continue
        words = f"  {100 * rate:3.0f} %  {100 * low:.0f} .. {100 * high:.0f} %  n = {count:.0f}"
        yield Text.assemble((f"{escaped(run.name):<{_NAME}} ", ""), (bar(rate, _BARS), "magenta"), words)


def _machine(status: Status) -> Iterator[Text]:
    if status.state != "running" or (status.life and status.life.host != socket.gethostname()):
        return
    for use in uses(status.pid):
        yield Text.assemble((f"{use.name:<{_NAME}} ", ""), (bar(use.share, _BARS), "yellow"), f"  {use.text}")


def _row(name: str, value: str) -> Text:
    return Text.assemble((f"{name:<{_NAME}} ", "dim"), escaped(value), no_wrap=True, overflow="ellipsis")


def _ago(when: float) -> str:
    return f"{spell_time(max(0.0, time.time() - when))} ago"


def _last_lines(status: Status, count: int) -> list[str]:
    return [escaped(line) for line in status.life.lines[-count:]] if status.life and count else []
