"""Shows an engine's progress events: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from mlflow_project.tracking.announce import say_link
from mlflow_project.tracking.live import Work
from mlflow_project.tracking.pace import Pace, amount, details, line, spell_rate, spell_time
from mlflow_project.tracking.runs import current_run
from mlflow_project.tracking.signals import poll
from mlflow_project.tracking.terminal import SafeConsole
from rlinf_isaac.ground import events
from rlinf_isaac.ground.events import Event

LINE_EVERY_S = 60.0
"""Without a terminal a line is printed at least so often."""
_HEART_S = 5.0


class ProgressView:
    """Context manager that shows `events.Progress`.

    On a terminal it shows one bar per label with rate and remaining time. Elsewhere (CI, a log file, Slurm) it prints a
    line at each tenth of the work, and at least one a minute, also while the work says nothing. Inside a `tracked_run`
    the same lines are in the verb's sign of life (`live`), which `rlinf-isaac watch` shows. `clock` returns seconds.
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
            _Left(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self.console,
        )
        self._run = current_run()
        self._tasks: dict[str, TaskID] = {}
        self._tenths: dict[str, int] = {}
        self._paces: dict[str, Pace] = {}
        self._metrics: dict[str, float] = {}
        self._saved: int | None = None
        self._newest: events.Progress | None = None
        self._heard = self._printed = self._began = clock()
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._heart = threading.Thread(target=self._keep_beating, name="progress", daemon=True)

    def __enter__(self) -> ProgressView:
        say_link(self.console)
        self._heart.start()
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self.console.is_terminal:
            self._bars.stop()
        if self._run is not None:
            self._run.life.beat(at_once=True)

    def note(self, event: Event) -> None:
        """Keep what the next lines say of an event: metrics, a saved checkpoint; and say where a training resumes."""
        if isinstance(event, events.Metrics):
            with self._lock:
                self._metrics |= event.values
        elif isinstance(event, events.CheckpointSaved):
            self._saved = event.step
        elif isinstance(event, events.Resumed):
            what = "iteration" if event.label == "rl" else "step"
            self._say(f"{event.label} resumes after {what} {event.step} of {event.total}", always=True)

    def show(self, progress: events.Progress) -> None:
        """Update the bar (or the lines) of ``progress.label``."""
        poll()
        now = self.clock()
        with self._lock:
            pace = self._paces.setdefault(progress.label, Pace())
            pace.add(now, progress.done)
            self._newest, self._heard = progress, now
            text = details(progress, self._metrics)
            left = pace.left(progress.done, progress.total)
        if self._run is not None:
            work = Work(progress.label, progress.done, progress.total, progress.unit, text, pace.rate, left)
            self._run.life.work(work)
        if self.console.is_terminal:
            self._show_bar(progress, text, pace.rate, left)
        tenth = 10 * progress.done // max(1, progress.total)
        if tenth != self._tenths.get(progress.label) or now - self._printed >= LINE_EVERY_S:
            self._tenths[progress.label] = tenth
            self._say(line(progress, self._metrics, pace, self._saved))

    def beat(self) -> None:
        """Say that the work goes on, if nothing was printed for a minute; called from a thread."""
        say_link(self.console, patience_s=0.0)
        if self._run is not None:
            self._run.life.beat()
        now = self.clock()
        with self._lock:
            if now - self._printed < LINE_EVERY_S:
                return
            silent, progress = now - self._heard, self._newest
            if progress is None:
                text = f"preparing for {spell_time(now - self._began)}"
            else:
                text = line(progress, self._metrics, self._paces[progress.label], self._saved)
                text += f"  (no news for {spell_time(silent)})" if silent >= LINE_EVERY_S else ""
            self._say(text)

    def _say(self, text: str, *, always: bool = False) -> None:
        """Print a line where there is no terminal, or `always`; the sign of life has it in any case."""
        with self._lock:
            self._printed = self.clock()
            if self._run is not None:
                self._run.life.line(text)
            if always or not self.console.is_terminal:
                self.console.print(text, soft_wrap=True)

    def _show_bar(self, progress: events.Progress, text: str, rate: float | None, left: float | None) -> None:
        if progress.label not in self._tasks:
            self._tasks[progress.label] = self._bars.add_task(progress.label, note="", unit=progress.unit)
        note = text + (f"  saved {self._saved}" if self._saved is not None else "")
        self._bars.update(
            self._tasks[progress.label],
            completed=progress.done,
            total=progress.total,
            note=note,
            rate=spell_rate(rate, progress.unit) if rate else "",
            left=f"eta {spell_time(left)}" if left is not None else "",
        )

    def _keep_beating(self) -> None:
        while not self._ending.wait(_HEART_S):
            self.beat()


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
            view.note(event)
            for listener in listeners:
                listener(event)


class _Done(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        text = f"{amount(task.completed, unit)}/{amount(task.total or 0, unit)}"
        return Text(text, style="progress.download")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields.get("rate", ""), style="progress.data.speed")


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.finished else task.fields.get("left", ""), style="progress.remaining")
