"""Two processes that train together, told one training after the other: a new pair would import torch for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from rlinf_isaac.engines.base import RlJob, SftJob
from rlinf_isaac.engines.local.rl.train import train_as as rl_as
from rlinf_isaac.engines.local.sft.train import train_as as sft_as
from rlinf_isaac.engines.local.training.processes import train_in_processes
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.ground.events import Event, Progress

DONE = "done"


class Pair:
    """What `train_in_processes` starts for two processes; it starts them for the first training, and again after one
    that failed."""

    def __init__(self) -> None:
        self._events: Iterator[Event | str] = iter(())
        self._orders: list[Connection] = []

    def sft(self, job: SftJob, until: int | None = None) -> list[Event]:
        """The events of a training, which may end after step `until`, in the moment before the next one begins."""
        return self._run(sft_as, job, until)

    def rl(self, job: RlJob, until: int | None = None) -> list[Event]:
        """As `sft`, of reinforcement learning, which may end after the iteration `until`."""
        return self._run(rl_as, job, until)

    def _run(self, train: Callable[..., Iterator[Event]], job: SftJob | RlJob, until: int | None) -> list[Event]:
        assert job.processes == 2
        job.output.mkdir(parents=True, exist_ok=True)
        if not self._orders:
            ends = [Pipe(duplex=False) for _ in range(job.processes)]
            self._orders = [sender for _, sender in ends]
            self._events = train_in_processes(job, partial(_obey, [receiver for receiver, _ in ends]))
        for order in self._orders:
            order.send((train, job, until))
        events = []
        try:
            while not isinstance(event := next(self._events), str):
                events.append(event)
        except BaseException:
            self._orders = []
            raise
        return events

    def close(self) -> None:
        """End the two processes."""
        for order in self._orders:
            with suppress(BrokenPipeError):
                order.send(None)
        self._orders = []
        assert list(self._events) == []


def _obey(orders: Sequence[Connection], _: SftJob | RlJob, team: Team) -> Iterator[Event | str]:
    """In each process: the events of every training that it is told, and `DONE` after each."""
    while (order := orders[team.rank].recv()) is not None:
        train, job, until = order
        run = train(job, team)
        for event in run:
            yield event
            if isinstance(event, Progress) and event.done == until:
                break
        run.close()
        yield DONE
