"""Fine-tuning in several processes, one for each GPU: of this machine, which are started here, or of several, which
torchrun starts.
"""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist

from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.engines.local.training.torchrun import launch
from rlinf_isaac.ground.child_process import follow_parent
from rlinf_isaac.ground.errors import RlinfIsaacError
from rlinf_isaac.ground.events import Event

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: while one of them writes a large checkpoint, or plays."""


def train_in_processes(job: SftJob, train: Callable[[SftJob, Team], Iterator[Event]]) -> Iterator[Event]:
    """The events of `train` in the first of ``job.processes`` processes of this machine.

    Raises:
        RlinfIsaacError: a process died. What one of them raised is raised here.
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
    """This process's place among those that torchrun started; None where it did not start it."""
    place = launch()
    return None if place is None else Team(*place)


def train_with_others(job: SftJob, team: Team, train: Callable[[SftJob, Team], Iterator[Event]]) -> Iterator[Event]:
    """The events of `train` as one of the processes that torchrun started; it ends them all where one of them fails."""
    with _joined(team, job.config.compute.device, init_method="env://"):
        yield from train(job, team)


@contextmanager
def _joined(team: Team, device_name: str, **where: object) -> Iterator[None]:
    """Within it the processes of the team can exchange tensors; `where` says how they find each other."""
    # pi0's layers return views; FSDP warns, because changing one in place would lose a hook. Nothing here does.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")
    # The option that replaces broadcast_buffers does not exist in the oldest torch that this project admits.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
    device = team.device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE, **where)  # type: ignore[arg-type]  # one of its two ways
    yield
    dist.destroy_process_group()  # not where something was raised: the others may never answer


def _listen(receivers: list[Connection]) -> Iterator[Event]:
    """Events until all processes are done."""
    while receivers:
        for receiver in connection.wait(receivers):
            assert isinstance(receiver, Connection)
            try:
                said = receiver.recv()
            except EOFError:
                raise RlinfIsaacError(
                    "a process of the training died (killed, or out of memory). The last checkpoint is kept, and the "
                    "same command goes on from it; if memory is short, start anew with a smaller sft.micro_batch"
                ) from None
            if said is None:
                receivers.remove(receiver)
            elif isinstance(said, BaseException):
                raise said
            else:
                yield said


def _work(
    team: Team, directory: Path, sender: Connection, job: SftJob, train: Callable[[SftJob, Team], Iterator[Event]]
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
    """Whether an exception arrives in another process as what it is."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:
        return False
