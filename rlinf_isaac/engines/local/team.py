"""Fine-tuning in several processes: one for each GPU, the model sharded over them by FSDP2 (`torch.distributed.fsdp`).

Every process draws the whole batch's noise and loads its own rows, so that the training is the one of a single process
up to rounding. Checkpoints and training states are whole, in the files that one process writes.
"""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rlinf_isaac.child_process import follow_parent
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.errors import RlinfIsaacError
from rlinf_isaac.events import Event
from rlinf_isaac.pi0.gemma import AdaptiveRMSNorm, RMSNorm
from rlinf_isaac.pi0.model import Pi0

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Team:
    """Process `rank` of `size` that train together. Alone it changes nothing."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and tells of what happened."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """This process's device: of several GPUs the one with its rank."""
        return torch.device(name, self.rank) if name == "cuda" and self.size > 1 else torch.device(name)

    def rows(self, batch_size: int) -> slice:
        """This process's share of a batch."""
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a scalar over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value / self.size

    def collect(self, tensors: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
        """The whole tensors, in the first process; all have to ask, and the others get nothing."""
        if self.size == 1:
            return dict(tensors)
        gathered = ((name, whole(tensor)) for name, tensor in tensors.items())
        return {name: tensor.cpu() for name, tensor in gathered if self.first}

    def shard(self, model: Pi0) -> Pi0:
        """Spread the parameters over the processes, in place; names stay. Layers are units of their own."""
        if self.size == 1:
            return model
        from torch.distributed.device_mesh import init_device_mesh  # slow to import
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        mesh = init_device_mesh(next(model.parameters()).device.type, (self.size,))
        for module in _units(model):
            fully_shard(module, mesh=mesh)
        # Only the keys and values of the last one are computed, past its forward().
        register_fsdp_forward_method(model.vlm.language_model.layers[-1], "keys_values")
        return model


def _units(model: Pi0) -> Iterator[nn.Module]:
    if len({parameter.dtype for parameter in model.parameters()}) > 1:
        # The gradients of a unit have one format: what stays float32 in a bfloat16 model are units of their own.
        yield model.vlm.vision_tower.vision_model.embeddings
        yield from (module for module in model.modules() if isinstance(module, RMSNorm | AdaptiveRMSNorm))
        yield from (module for module in model.children() if isinstance(module, nn.Linear))
    for stack in model.stacks:
        yield from stack.layers
    yield model


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which the processes have shards, if they have. All of them have to ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def own_part(tensor: Tensor) -> Tensor:
    """This process's shard, in the same memory."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def shard_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor on the device of `parameter`, of which this process keeps what it keeps of that."""
    tensor = tensor.to(parameter.device)
    if not hasattr(parameter, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)


def train_in_processes(job: SftJob, train: Callable[[SftJob, Team], Iterator[Event]]) -> Iterator[Event]:
    """The events of `train` in the first of ``compute.num_processes`` processes.

    Raises:
        RlinfIsaacError: a process died. What one of them raised is raised here.
    """
    size = job.config.compute.num_processes
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        ends = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=_work, args=(Team(rank, size), Path(directory), ends[rank][1], job, train))
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
    # pi0's layers return views; FSDP warns, because changing one in place would lose a hook. Nothing here does.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")
    device = team.device(job.config.compute.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        backend = "nccl" if device.type == "cuda" else "gloo"
        store = dist.FileStore(str(directory / "store"), team.size)
        dist.init_process_group(backend, store=store, rank=team.rank, world_size=team.size)
        for event in train(job, team):
            if team.first:
                sender.send(event)
        dist.destroy_process_group()
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
