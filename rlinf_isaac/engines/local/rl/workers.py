"""Computes rollouts and gradients in worker processes; each has its own environment and its own copy of the policy.

An episode is a function of the weights, its seed, its index and the iteration, and every policy call has a full batch
of the same size, so the results do not depend on which worker plays an episode. The shards of a minibatch, and so the
rounding of its gradient, depend only on the number of workers. A single worker runs in this process.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import torch

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.local.rl.experience import Experience
from rlinf_isaac.engines.local.rl.explorer import Rollout, explore
from rlinf_isaac.engines.local.rl.update import Gradient, gradient
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.engines.rollout import rollout
from rlinf_isaac.envs.lanes import make_lanes
from rlinf_isaac.ground.child_process import follow_parent
from rlinf_isaac.ground.errors import RlinfIsaacError
from rlinf_isaac.pi0.flow_policy import FlowActorCritic
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.policy import Pi0Policy

T = TypeVar("T")


class Result(NamedTuple):
    """Result of one held-out episode."""

    seed: int
    success: bool
    length: int


class RolloutWorker:
    """Plays episodes and computes gradients with one environment and one policy.

    Args:
        config: config of the job.
        norm_stats: bytes of the checkpoint's norm_stats.json.
        num_envs: slots; what every policy call's batch size is.
        policy: the policy to play with; a new one, to be filled by `load`, if None.
        env_python: interpreter that has the environment; None: the one that the task, or ISAACLAB_PYTHON, names.
    """

    def __init__(
        self,
        config: JobConfig,
        norm_stats: bytes,
        num_envs: int,
        policy: FlowActorCritic | None = None,
        env_python: str | None = None,
    ) -> None:
        self.config = config
        self.processor = make_processor(config, from_json(norm_stats))
        self.env = make_lanes(config, num_envs, env_python)
        self.policy = policy or FlowActorCritic(
            Pi0(config.model).to(config.compute.device).eval(), config.policy, config.rl
        )

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over these weights, some or all of them (`checkpoint_module` names)."""
        state = {name: torch.from_numpy(array) for name, array in weights.items()}
        unknown = self.policy.checkpoint_module().load_state_dict(state, strict=False).unexpected_keys
        assert not unknown, unknown

    def explore(self, seeds: Sequence[int], indices: Sequence[int], iteration: int) -> Rollout:
        return explore(self.env, self.policy, self.processor, seeds, indices, iteration=iteration)

    def gradient(self, rows: Experience, total: int, learn: bool) -> Gradient:
        return gradient(self.policy, self.processor, rows, total, self.env.rows, learn)

    def evaluate(self, seeds: Sequence[int]) -> list[Result]:
        """Play episodes without exploration noise, exactly as `eval` plays them with the same number of slots."""
        policy = Pi0Policy(self.policy.model, self.processor, self.config.policy, self.config.compute.device)
        episodes = rollout(self.env, policy, seeds, policy_seed=self.config.eval.policy_seed)
        return [Result(each.seed, each.outcome == "success", each.length) for each in episodes]


class RolloutWorkers:
    """Context manager that shares the work among `rl.workers` workers.

    Args:
        config: config of the job.
        norm_stats: bytes of the checkpoint's norm_stats.json.
        policy: the policy that trains. Workers get what of it is frozen when they start, and the weights that train
            with every piece of work.
        env_python: interpreter that has the environment; None: the one that the task, or ISAACLAB_PYTHON, names.
    """

    def __init__(
        self, config: JobConfig, norm_stats: bytes, policy: FlowActorCritic, env_python: str | None = None
    ) -> None:
        self.policy, self.workers = policy, config.rl.workers
        slots = config.rl.num_envs // self.workers
        self.player: RolloutWorker | None = None
        self.executor: ProcessPoolExecutor | None = None
        self.processes = _RememberingContext()
        if self.workers == 1:
            self.player = RolloutWorker(config, norm_stats, slots, policy, env_python)
        else:
            self.executor = ProcessPoolExecutor(
                self.workers,
                mp_context=self.processes,
                initializer=_start_worker,
                initargs=(replace(config), norm_stats, slots, _weights(policy, trained=False), env_python),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.player is not None:
            self.player.env.close()
        if self.executor is not None:
            if kind is not None:  # nobody waits for the episodes they are playing
                for worker in self.processes.started:
                    worker.kill()
            self.executor.shutdown(wait=True, cancel_futures=True)

    def explore(self, seeds: Sequence[int], iteration: int) -> list[Rollout]:
        """Play one training episode per seed; episode i belongs to seed i. Returns one rollout per worker."""
        shares = [range(worker, len(seeds), self.workers) for worker in range(self.workers)]
        return self._map(
            RolloutWorker.explore, [([seeds[i] for i in share], list(share), iteration) for share in shares]
        )

    def gradients(self, rows: Experience, learn: bool) -> list[Gradient]:
        """Gradients of a minibatch, one shard per worker (fewer shards if there are fewer rows than workers)."""
        shares = [share for share in np.array_split(np.arange(len(rows)), self.workers) if len(share)]
        return self._map(RolloutWorker.gradient, [(rows.rows(share), len(rows), learn) for share in shares])

    def evaluate(self, seeds: Sequence[int]) -> list[Result]:
        """Deterministic episodes, in the order of their seeds."""
        results = self._map(
            RolloutWorker.evaluate, [(seeds[worker :: self.workers],) for worker in range(self.workers)]
        )
        return sorted(result for part in results for result in part)

    def _map(self, do: Callable[..., T], arguments: Sequence[tuple[Any, ...]]) -> list[T]:
        """What a method of `RolloutWorker` gives for each of the arguments, each in another worker."""
        if self.player is not None:
            return [do(self.player, *each) for each in arguments]
        assert self.executor is not None
        weights = _weights(self.policy, trained=True)
        try:
            futures = [self.executor.submit(_work, do, weights, each) for each in arguments]
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise RlinfIsaacError(
                "a worker process of the training died (killed, or out of memory). The last checkpoint is kept and the "
                "same command resumes from it; if memory is short, start anew with a smaller rl.num_envs or rl.workers"
            ) from error


class _RememberingContext(SpawnContext):
    """The context of spawned processes, and those that were started through it: no one else's are to be killed."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]
        process = SpawnProcess(*args, **options)
        self.started.append(process)
        return process


def _weights(policy: FlowActorCritic, *, trained: bool) -> dict[str, np.ndarray]:
    """The weights that train, or the others (`checkpoint_module` names). On a CPU they share the policy's memory."""
    whole = policy.checkpoint_module()
    trains = {name for name, parameter in whole.named_parameters() if parameter.requires_grad}
    return {
        name: tensor.detach().cpu().numpy()
        for name, tensor in whole.state_dict().items()
        if (name in trains) == trained
    }


_player: RolloutWorker | None = None


def _start_worker(
    config: JobConfig, norm_stats: bytes, slots: int, frozen: Mapping[str, np.ndarray], env_python: str | None
) -> None:
    global _player
    follow_parent()  # it winds the pool up
    torch.set_num_threads(1)  # the workers are the parallelism
    _player = RolloutWorker(config, norm_stats, slots, env_python=env_python)
    _player.load(frozen)
    atexit.register(_player.env.close)  # before the GL libraries end


def _work(do: Callable[..., T], weights: Mapping[str, np.ndarray], arguments: tuple[Any, ...]) -> T:
    assert _player is not None
    _player.load(weights)
    return do(_player, *arguments)
