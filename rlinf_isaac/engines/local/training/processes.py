"""Runs a training in several processes, one for each GPU. They are started here for one machine, or by torchrun for
several machines.
"""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.local.training.team import ALONE, Team
from rlinf_isaac.engines.local.training.torchrun import launch
from rlinf_isaac.ground.atomic import locked
from rlinf_isaac.ground.child_process import follow_parent
from rlinf_isaac.ground.errors import RlinfIsaacError
from rlinf_isaac.ground.events import Event

PATIENCE = timedelta(hours=2)
"""Time that processes wait for each other, for example while one of them writes a large checkpoint or evaluates it."""


class TrainingJob(Protocol):
    """What a job must say to be trained in several processes (`engines.base`)."""

    @property
    def config(self) -> JobConfig: ...

    @property
    def output(self) -> Path: ...

    @property
    def processes(self) -> int: ...


Job = TypeVar("Job", bound=TrainingJob)


def train_together(job: Job, train: Callable[[Job, Team], Iterator[Event]]) -> Iterator[Event]:
    """Run `train` in this process, in as many as the job asks for, or as one of those that torchrun started; yield the
    events of the first one, and keep other trainings out of the job's directory."""
    job.output.mkdir(parents=True, exist_ok=True)
    team = team_of_torchrun()
    with locked(job.output) if team is None or team.first else nullcontext():
        if team is not None:
            yield from train_with_others(job, team, train)
        elif job.processes > 1:
            yield from train_in_processes(job, train)
        else:
            yield from train(job, ALONE)


def train_in_processes(job: Job, train: Callable[[Job, Team], Iterator[Event]]) -> Iterator[Event]:
    """Run `train` in ``job.processes`` processes of this machine, and yield the events of the first one.

    Raises:
        RlinfIsaacError: a process died. Exceptions of a process are raised here as well.
    """
    size = job.processes
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        ends = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=_work, args=(Team(rank, size, rank), Path(directory), ends[rank][1], job, train))
            for rank in range(size)
        ]
        try:
            for process, (_, sender) in zip(processes, ends, strict=True):
                process.start()
                sender.close()
            yield from _listen([receiver for receiver, _ in ends])
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()


def team_of_torchrun() -> Team | None:
    """Rank and size of the processes that torchrun started; None if torchrun did not start this process."""
    place = launch()
    return None if place is None else Team(*place)


def train_with_others(job: Job, team: Team, train: Callable[[Job, Team], Iterator[Event]]) -> Iterator[Event]:
    """Run `train` as one of torchrun's processes, and yield its events. If one process fails, torchrun ends all."""
    common, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    # A process may train several jobs, one after the other, and what they agree on must not be taken for each other's.
    store = dist.PrefixStore(str(job.output), common)
    with _joined(team, job.config.compute.device, store=store, rank=rank, world_size=size):
        yield from train(job, team)


@contextmanager
def _joined(team: Team, device_name: str, **where: object) -> Iterator[None]:
    """Initialise torch.distributed for the with block; `where` says how the processes of the team find each other."""
    # pi0's layers return views, and FSDP warns that changing one in place would lose a hook. Nothing changes them.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")
    # The option that replaces broadcast_buffers does not exist in the oldest torch that this project admits.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
    device = team.device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE, **where)  # type: ignore[arg-type]  # one of its two ways
    yield
    dist.destroy_process_group()  # not after an exception, because the other processes may never answer


def _listen(receivers: list[Connection]) -> Iterator[Event]:
    """Yield the events of all processes until all have finished."""
    while receivers:
        for receiver in connection.wait(receivers):
            assert isinstance(receiver, Connection)
            try:
                said = receiver.recv()
            except EOFError:
                raise RlinfIsaacError(
                    "a process of the training died (killed, or out of memory). The last checkpoint is kept, and the "
                    "same command resumes from it; if memory is short, start anew with a smaller sft.micro_batch or "
                    "rl.micro_batch"
                ) from None
            if said is None:
                receivers.remove(receiver)
            elif isinstance(said, BaseException):
                raise said
            else:
                yield said


def _work(
    team: Team, directory: Path, sender: Connection, job: Job, train: Callable[[Job, Team], Iterator[Event]]
) -> None:
    follow_parent()
    try:
        store = dist.FileStore(str(directory / "store"), team.size)
        with _joined(team, job.config.compute.device, store=store, rank=team.rank, world_size=team.size):
            for event in train(job, team):
                if team.first:
                    sender.send(event)
        sender.send(None)
    except Exception as error:
        with suppress(BrokenPipeError):
            sender.send(error if _survives(error) else RlinfIsaacError(f"{type(error).__name__}: {error}"))


def _survives(error: Exception) -> bool:
    """Whether an exception keeps its type when it is pickled and sent to another process."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:
        return False
