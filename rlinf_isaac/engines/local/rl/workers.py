"""Computes rollouts and gradients on a CPU in worker processes, each with its own environment.

An episode is a function of the weights, its seed, its index and the iteration, and every policy call has a full batch
of the same size, so the results do not depend on which worker plays an episode. The shards of a minibatch, and so the
rounding of its gradient, depend only on the number of workers.

Weights, gradients and the rollout buffer lie in memory that all workers share (`shared`): the optimisers step in place,
and a piece of work is sent as numbers of rows.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.exploration import PlainSampler
from rlinf_isaac.engines.local.rl import gradients
from rlinf_isaac.engines.local.rl.buffer import BufferShape, RolloutBuffer
from rlinf_isaac.engines.local.rl.explorer import Rollout
from rlinf_isaac.engines.local.rl.gradients import Targets, trained_parameters
from rlinf_isaac.engines.local.rl.player import Player, Result
from rlinf_isaac.engines.local.rl.shared import SharedTensors
from rlinf_isaac.engines.local.rl.start import empty_policy
from rlinf_isaac.ground.child_process import follow_parent
from rlinf_isaac.ground.errors import RlinfIsaacError
from rlinf_isaac.pi0.flow_policy import FlowActorCritic

T = TypeVar("T")
LOOK_S = 0.5
"""How often the number of episodes that workers have played is looked at."""


class Work(NamedTuple):
    """What every worker needs to begin; `buffer` has the rows of all workers, `slots` are those of one."""

    config: JobConfig
    norm_stats: bytes
    slots: int
    buffer: BufferShape
    shared: SharedTensors
    env_python: str | None


class WorkerProcesses:
    """Worker processes with an environment each, on the CPU.

    Args:
        config: config of the job.
        norm_stats: bytes of the checkpoint's norm_stats.json.
        policy: the policy that trains; its parameters move into shared memory.
        shape: of the rollout buffer, with the rows of all workers.
        env_python: interpreter that has the environment; None: the one that the task, or ISAACLAB_PYTHON, names.
    """

    def __init__(
        self, config: JobConfig, norm_stats: bytes, policy: FlowActorCritic, shape: BufferShape, env_python: str | None
    ) -> None:
        self.workers = config.rl.workers
        weights = {name: each.detach() for name, each in policy.checkpoint_module().named_parameters()}
        self._trained = trained = dict(trained_parameters(policy))
        shared = SharedTensors(
            {
                **{f"weight.{name}": (tuple(each.shape), each.dtype) for name, each in weights.items()},
                **{
                    f"gradient.{worker}.{name}": (tuple(each.shape), each.dtype)
                    for worker in range(self.workers)
                    for name, each in trained.items()
                },
                **shape.numbers(),
                **shape.prefixes(shape.rows),
                **shape.images(),
                "played": ((self.workers,), torch.int64),
            }
        )
        self.tensors = shared.tensors
        for name, weight in weights.items():
            self.tensors[f"weight.{name}"].copy_(weight)
        _use(policy, self.tensors)
        self.buffer = RolloutBuffer(shape, self.tensors)
        self.processes = _RememberingContext()
        work = Work(config, norm_stats, config.rl.num_envs // self.workers, shape, shared, env_python)
        self.executor = ProcessPoolExecutor(
            self.workers, mp_context=self.processes, initializer=_start_worker, initargs=(work,)
        )

    def close(self, *, failed: bool) -> None:
        """End the workers; if this training has failed, at once, for nobody waits for what they are doing."""
        if failed:
            for worker in self.processes.started:
                worker.kill()
        self.executor.shutdown(wait=True, cancel_futures=True)

    def explore(
        self, seeds: Sequence[int], indices: Sequence[int], iteration: int
    ) -> Generator[int, None, list[Rollout]]:
        """As `Players.explore`."""
        shares = [range(worker, len(seeds), self.workers) for worker in range(self.workers)]
        self.tensors["played"].zero_()
        futures = self._submit(
            _explore,
            [
                (worker, [seeds[i] for i in share], [indices[i] for i in share], iteration)
                for worker, share in enumerate(shares)
            ],
        )
        # Wait for all, even if one has failed: what plays on would write into the rows of the next rollout.
        while wait(futures, timeout=LOOK_S).not_done:
            yield int(self.tensors["played"].sum())
        return self._results(futures)

    def add_gradients(self, rows: np.ndarray, targets: Targets, total: float, learn: bool) -> torch.Tensor:
        """As `gradients.add_gradients`: a shard of these rows for each worker, or fewer if there are fewer rows."""
        shares = [share for share in np.array_split(np.arange(len(rows)), self.workers) if len(share)]
        parts = self._results(
            self._submit(
                _add_gradients,
                [
                    (number, rows[share], [tensor[share].numpy() for tensor in targets], total, learn)
                    for number, share in enumerate(shares)
                ],
            )
        )
        # Sum the gradients of the shards in a fixed order.
        for number, (names, _) in enumerate(parts):
            for name in names:
                found, parameter = self.tensors[f"gradient.{number}.{name}"], self._trained[name]
                parameter.grad = found.clone() if parameter.grad is None else parameter.grad.add_(found)
        means = torch.from_numpy(np.stack([numbers for _, numbers in parts]))
        return torch.cat([means[:, :-1].sum(0), means[:, -1].max()[None]])

    def evaluate(self, seeds: Sequence[int]) -> list[Result]:
        """As `Players.evaluate`."""
        shares = [(seeds[worker :: self.workers],) for worker in range(self.workers)]
        return [result for part in self._results(self._submit(_evaluate, shares)) for result in part]

    def _submit(self, do: Callable[..., T], arguments: Sequence[tuple[Any, ...]]) -> list[Future[T]]:
        try:
            return [self.executor.submit(do, *each) for each in arguments]
        except BrokenProcessPool as error:
            raise _died() from error

    def _results(self, futures: Sequence[Future[T]]) -> list[T]:
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise _died() from error


def _died() -> RlinfIsaacError:
    return RlinfIsaacError(
        "a worker process of the training died (killed, or out of memory). The last checkpoint is kept and the "
        "same command resumes from it; if memory is short, start anew with a smaller rl.num_envs or rl.workers"
    )


class _RememberingContext(SpawnContext):
    """The context of spawned processes, and those that were started through it: no one else's are to be killed."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]
        process = SpawnProcess(*args, **options)
        self.started.append(process)
        return process


def _use(policy: FlowActorCritic, tensors: dict[str, torch.Tensor]) -> None:
    """Let the parameters of `policy` be the shared ones."""
    for name, parameter in policy.checkpoint_module().named_parameters():
        parameter.data = tensors[f"weight.{name}"]


_player: Player | None = None
_shared: SharedTensors | None = None


def _start_worker(work: Work) -> None:
    global _player, _shared
    follow_parent()  # it winds the pool up
    torch.set_num_threads(1)  # the workers are the parallelism
    _shared = work.shared
    policy = empty_policy(work.config)
    _use(policy, _shared.tensors)
    buffer = RolloutBuffer(work.buffer, _shared.tensors)
    sampler = PlainSampler(policy)
    _player = Player(work.config, work.norm_stats, work.slots, policy, buffer, sampler, work.env_python)
    atexit.register(_player.env.close)  # before the GL libraries end


def _explore(worker: int, seeds: Sequence[int], indices: Sequence[int], iteration: int) -> Rollout:
    assert _player is not None
    assert _shared is not None
    share = _player.buffer.shape.rows // _player.config.rl.workers
    playing = _player.explore(seeds, indices, iteration, range(worker * share, (worker + 1) * share))
    while True:
        try:
            _shared.tensors["played"][worker] = next(playing)
        except StopIteration as end:
            return end.value


def _add_gradients(
    number: int, rows: np.ndarray, targets: Sequence[np.ndarray], total: float, learn: bool
) -> tuple[list[str], np.ndarray]:
    """Put the gradient of a shard into the shared memory; returns the names of its parameters, and the metrics."""
    assert _player is not None
    assert _shared is not None
    policy = _player.policy
    policy.zero_grad(set_to_none=True)
    compared = Targets(*map(torch.from_numpy, targets))
    size = _player.env.rows
    numbers = gradients.add_gradients(policy, _player.buffer, rows, compared, total, size, learn)
    found = [(name, parameter.grad) for name, parameter in trained_parameters(policy) if parameter.grad is not None]
    for name, gradient in found:
        _shared.tensors[f"gradient.{number}.{name}"].copy_(gradient)
    return [name for name, _ in found], numbers.numpy()


def _evaluate(seeds: Sequence[int]) -> list[Result]:
    assert _player is not None
    return _player.evaluate(seeds)
