"""What became of a verb: whether it runs, has ended or has died, how far it is, and what it has last made."""

from __future__ import annotations

import math
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlflow_project.tracking.live import Life, pid_namespace, read_life
from mlflow_project.vocabulary import EPISODES, SUCCESS, SUCCESS_HIGH, SUCCESS_LOW
from mlflow_project.watching.find import outputs
from mlflow_project.watching.journals import JournalView, SeenRun, journals_in, open_journal, sent
from rlinf_isaac.ground.atomic import process_exists

FRESH_S = 30.0
"""A sign of life from elsewhere that is younger means that the verb runs. A running verb gives one every 5 s."""
_LOOKED_AT = 30
_LAG_S = 10.0
SUCCESSES = (SUCCESS, "heldout/success_once", "rollout/success_once")


@dataclass(frozen=True)
class Success:
    """The newest success rate: of which evaluation, with the bounds and number of episodes where they are known."""

    key: str
    step: int
    time: float
    rate: float
    low: float | None = None
    high: float | None = None
    episodes: int | None = None

    def __str__(self) -> str:
        text = f"{100 * self.rate:.0f} %"
        if self.low is not None and self.high is not None:
            text += f" ({100 * self.low:.0f} .. {100 * self.high:.0f} %"
            text += f", n = {self.episodes})" if self.episodes else ")"
        where = {"heldout": "held-out seeds", "rollout": "training episodes"}.get(self.key.partition("/")[0])
        return f"{text} at step {self.step}" + (f", {where}" if where else "")


@dataclass(frozen=True)
class Status:
    """A verb at one moment.

    Attributes:
        state: ``running``, ``finished``, ``failed``, ``killed``; or ``died``: its process is gone and ended no run.
        run_id: MLflow's id of its run; None if MLflow does not have it yet.
        view, life: what the journal and the sign of life say; `life` is None for journals of earlier releases.
        saved: step and unix seconds of the newest checkpoint.
        success: the newest success rate.
        unsent: bytes of the journal that MLflow does not have.
    """

    state: str
    run_id: str | None
    view: JournalView
    life: Life | None
    saved: tuple[int, float] | None
    success: Success | None
    unsent: int

    @property
    def root(self) -> SeenRun | None:
        """The verb's own run."""
        return self.view.root

    @property
    def pid(self) -> int:
        """Process id of the verb."""
        return self.life.pid if self.life else self.view.header.pid

    @property
    def last_sign(self) -> float:
        """Unix seconds of the newest thing that was heard of it."""
        return max(self._written, self.life.written if self.life else 0.0)

    @property
    def lags(self) -> bool:
        """Whether MLflow lacks something for longer than a living verb needs to send it."""
        return self.unsent > 0 and (self.state != "running" or time.time() - self._written > _LAG_S)

    @property
    def _written(self) -> float:
        with suppress(OSError):
            return self.view.path.stat().st_mtime
        return self.view.header.created

    @property
    def seconds(self) -> float:
        """How long it has worked so far, or did."""
        root = self.root
        end = time.time() if self.state == "running" else (root and root.ended) or self.last_sign
        return max(0.0, end - self.view.header.created)


def status_of(view: JournalView) -> Status:
    """The status of the verb that writes, or wrote, this journal."""
    life, known = read_life(view.path), sent(view.path)
    root = view.root
    if root is not None and root.status is not None:
        state = root.status.lower()
    else:
        state = "running" if is_alive(view.header.pid, view.header.created, life) else "died"
    saved = [(made.step, made.time) for run in view.runs.values() for made in run.made]
    run_id = known.runs[root.run][0] if root is not None and root.run in known.runs else None
    unsent = max(0, view.size - known.offset)
    return Status(state, run_id, view, life, saved[-1] if saved else None, newest_success(view), unsent)


def newest_success(view: JournalView) -> Success | None:
    """The newest success rate in a journal."""
    found = view.newest(*SUCCESSES)
    if found is None:
        return None
    run, key, point = found
    more = {each: run.metrics[each][-1].value for each in (SUCCESS_LOW, SUCCESS_HIGH, EPISODES) if each in run.metrics}
    if key != SUCCESS:
        more = {}
    count = more.get(EPISODES)
    bounds = more.get(SUCCESS_LOW), more.get(SUCCESS_HIGH)
    return Success(key, point.step, point.time, point.value, *bounds, None if count is None else int(count))


def is_alive(pid: int, created: float, life: Life | None) -> bool:
    """Whether the process of a verb that has not ended its run is still there.

    Args:
        pid: of the process that wrote the journal.
        created: unix seconds of the journal's start; a process that is younger is another one with the same number.
        life: its sign of life. A process of another machine, or of another container, is alive while it gives one.
    """
    if life is not None and life.ended:
        return False
    if life is not None and (life.host, life.namespace) != (socket.gethostname(), pid_namespace()):
        return time.time() - life.written < FRESH_S
    if not process_exists(pid):
        return False
    began = _began(pid)
    return began is None or began < created + 2.0


def _began(pid: int) -> float | None:
    """Unix seconds at which a process began, as far as Linux says; infinite for one that has ended (a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] == "Z":
            return math.inf
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        return int(boot.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def current(output: Path) -> list[Status]:
    """The verbs on this machine that run or have died unfinished, the newest first; and the newest that has ended.

    Args:
        output: a directory of results to look in, besides those that were used lately.
    """
    views = [view for place in outputs(output) for path in journals_in(place) if (view := open_journal(path))]
    views.sort(key=lambda view: view.header.created, reverse=True)
    found = [status_of(view) for view in views[:_LOOKED_AT]]
    ended = [each for each in found if each.state not in ("running", "died")]
    return [each for each in found if each.state in ("running", "died") or each is ended[0]]
