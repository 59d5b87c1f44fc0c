"""Shows an engine's progress events: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from types import TracebackType

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mlflow_project.tracking.signals import poll
from mlflow_project.tracking.terminal import SafeConsole
from rlinf_isaac.ground import events
from rlinf_isaac.ground.events import Event


class ProgressView:
    """Context manager that shows `events.Progress`.

    On a terminal it shows one bar per label with rate and remaining time. Elsewhere (CI, a log file) it prints one line
    per tenth of the work, with the remaining time estimated from the pace so far. `clock` returns seconds.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.console = console or SafeConsole(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<12}", style="bold", markup=False),
            BarColumn(bar_width=28),
            _Done(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self.console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._tenths: dict[str, int] = {}
        self._begun: dict[str, tuple[float, int]] = {}  # when a label was first shown, and how much was done by then

    def __enter__(self) -> ProgressView:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def show(self, progress: events.Progress) -> None:
        """Update the bar (or the lines) of ``progress.label``."""
        poll()
        if self.console.is_terminal:
            if progress.label not in self._tasks:
                self._tasks[progress.label] = self._bars.add_task(progress.label, note="", unit=progress.unit)
            self._bars.update(
                self._tasks[progress.label], completed=progress.done, total=progress.total, note=progress.note
            )
            return
        tenth = 10 * progress.done // max(1, progress.total)
        if tenth != self._tenths.get(progress.label):
            self._tenths[progress.label] = tenth
            done = _amount(progress.done, progress.unit), _amount(progress.total, progress.unit)
            notes = filter(None, (progress.note, self._left(progress)))
            line = "  ".join((f"{progress.label:<12} {done[0]}/{done[1]}", *notes))
            self.console.print(line, soft_wrap=True)

    def _left(self, progress: events.Progress) -> str:
        """Estimate of the remaining time, from the pace since the label was first shown; items that a resumed job had
        done before do not count. Empty while the pace is unknown, and when nothing remains."""
        now = self.clock()
        begun, done_before = self._begun.setdefault(progress.label, (now, progress.done))
        if not done_before < progress.done < progress.total:
            return ""
        seconds = (now - begun) / (progress.done - done_before) * (progress.total - progress.done)
        return f"{seconds:.0f} s left" if seconds < 100 else f"{seconds / 60:.0f} min left"


def watch(stream: Iterable[Event], *listeners: Callable[[Event], None]) -> None:
    """Consume an engine's stream: show its progress events and pass every other event to the listeners.

    The stream is closed before this function returns or raises, so that the engine has cleaned up by then. (A traceback
    would keep the generator alive.)
    """
    with ProgressView() as view, ExitStack() as stack:
        if isinstance(stream, Generator):
            stack.callback(stream.close)
        for event in stream:
            poll()  # raises the exception of a signal if it was lost inside the engine
            if isinstance(event, events.Progress):
                view.show(event)
                continue
            for listener in listeners:
                listener(event)


class _Done(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        text = f"{_amount(task.completed, unit)}/{_amount(task.total or 0, unit)}"
        return Text(text, style="progress.download")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        if not task.speed:
            return Text("")
        rate = _amount(task.speed, "B") if task.fields["unit"] == "B" else f"{task.speed:.1f}"
        return Text(f"{rate}/s", style="progress.data.speed")


def _amount(number: float, unit: str) -> str:
    return decimal(int(number)) if unit == "B" else f"{number:.0f}"
