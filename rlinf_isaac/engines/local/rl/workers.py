"""Computes rollouts and gradients in worker processes; each has its own environment and its own copy of the policy.

An episode is a function of the weights, its seed, its index and the iteration, and every policy call has a full batch
of the same size, so the results do not depend on which worker plays an episode. The shards of a minibatch, and so the
rounding of its gradient, depend only on the number of workers. A single worker runs in this process.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import active_children, get_context
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.local.rl.experience import Experience
from rlinf_isaac.engines.local.rl.explorer import Rollout, explore
from rlinf_isaac.engines.local.rl.update import Gradient, gradient
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.engines.rollout import rollout
from rlinf_isaac.envs import make_env
from rlinf_isaac.ground.child_process import follow_parent
from rlinf_isaac.ground.errors import RlinfIsaacError
from rlinf_isaac.pi0.flow_policy import FlowActorCritic
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.policy import Pi0Policy


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
        num_envs: number of slots of the environment, and batch size of every policy call.
        policy: the policy; None creates a new one, whose weights `load` sets.
    """

    def __init__(
        self, config: JobConfig, norm_stats: bytes, num_envs: int, policy: FlowActorCritic | None = None
    ) -> None:
        self.config = config
        self.processor = make_processor(config, from_json(norm_stats))
        self.env = make_env(config.env, num_envs, config.compute.device)
        self.policy = policy or FlowActorCritic(
            Pi0(config.model).to(config.compute.device).eval(), config.policy, config.rl
        )

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Load `weights`, which have the names of `checkpoint_module`."""
        state = {name: torch.from_numpy(array) for name, array in weights.items()}
        self.policy.checkpoint_module().load_state_dict(state)

    def explore(self, seeds: Sequence[int], indices: Sequence[int], iteration: int) -> Rollout:
        layout = self.config.policy.state_layout
        return explore(self.env, self.policy, self.processor, seeds, indices, state_layout=layout, iteration=iteration)

    def gradient(self, rows: Experience, total: int, learn: bool) -> Gradient:
        prompt, size = self.env.identity.prompt, self.env.num_envs
        return gradient(self.policy, self.processor, prompt, rows, total, size, learn)

    def evaluate(self, seeds: Sequence[int]) -> list[Result]:
        """Play episodes without exploration noise, exactly as `eval` plays them with the same number of slots."""
        policy = Pi0Policy(self.policy.model, self.processor, self.config.policy, self.config.compute.device)
        episodes = rollout(
            self.env,
            policy,
            seeds,
            state_layout=self.config.policy.state_layout,
            policy_seed=self.config.eval.policy_seed,
        )
        return [Result(each.seed, each.outcome == "success", each.length) for each in episodes]


class RolloutWorkers:
    """Context manager that shares the work among `rl.workers` workers.

    Args:
        config: config of the job.
        norm_stats: bytes of the checkpoint's norm_stats.json.
        policy: the policy that is trained; its weights are sent to the workers with every call.
    """

    def __init__(self, config: JobConfig, norm_stats: bytes, policy: FlowActorCritic) -> None:
        self.policy, self.workers = policy, config.rl.workers
        slots = config.rl.num_envs // self.workers
        self.player: RolloutWorker | None = None
        self.executor: ProcessPoolExecutor | None = None
        if self.workers == 1:
            self.player = RolloutWorker(config, norm_stats, slots, policy)
        else:
            self.executor = ProcessPoolExecutor(
                self.workers,
                mp_context=get_context("spawn"),
                initializer=_start_worker,
                initargs=(replace(config), norm_stats, slots),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.player is not None:
            self.player.env.close()
        if self.executor is not None:
            if kind is not None:  # after an exception nobody needs the running episodes
                for worker in active_children():
                    worker.kill()
            self.executor.shutdown(wait=True, cancel_futures=True)

    def explore(self, seeds: Sequence[int], iteration: int) -> list[Rollout]:
        """Play one training episode per seed; episode i belongs to seed i. Returns one rollout per worker."""
        shares = [range(worker, len(seeds), self.workers) for worker in range(self.workers)]
        return self._map("explore", [([seeds[i] for i in share], list(share), iteration) for share in shares])

    def gradients(self, rows: Experience, learn: bool) -> list[Gradient]:
        """Gradients of a minibatch, one shard per worker (fewer shards if there are fewer rows than workers)."""
        shares = [share for share in np.array_split(np.arange(len(rows)), self.workers) if len(share)]
        return self._map("gradient", [(rows.rows(share), len(rows), learn) for share in shares])

    def evaluate(self, seeds: Sequence[int]) -> list[Result]:
        """Play episodes without exploration noise; the results are in the order of the seeds."""
        results = self._map("evaluate", [(seeds[worker :: self.workers],) for worker in range(self.workers)])
        return sorted(result for part in results for result in part)

    def _map(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        if self.player is not None:
            return [getattr(self.player, method)(*each) for each in arguments]
        assert self.executor is not None
        weights = {
            name: tensor.detach().cpu().numpy() for name, tensor in self.policy.checkpoint_module().state_dict().items()
        }
        try:
            futures = [self.executor.submit(_work, method, weights, each) for each in arguments]
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise RlinfIsaacError(
                "a worker process of the training died (killed, or out of memory). The last checkpoint is kept and the "
                "same command resumes from it; if memory is short, start anew with a smaller rl.num_envs or rl.workers"
            ) from error


_player: RolloutWorker | None = None


def _start_worker(config: JobConfig, norm_stats: bytes, slots: int) -> None:
    global _player
    follow_parent()  # end with the parent process, which normally shuts the pool down
    torch.set_num_threads(1)  # the workers run in parallel already
    _player = RolloutWorker(config, norm_stats, slots)
    atexit.register(_player.env.close)  # must run before the GL libraries are unloaded


def _work(method: str, weights: Mapping[str, np.ndarray], arguments: tuple[Any, ...]) -> Any:
    assert _player is not None
    _player.load(weights)
    return getattr(_player, method)(*arguments)
