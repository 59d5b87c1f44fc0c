"""Plays episodes, and computes gradients, with one environment and one policy: in this process or in a worker."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.exploration import Sampler
from rlinf_isaac.engines.local.rl.buffer import RolloutBuffer
from rlinf_isaac.engines.local.rl.explorer import Explorer, Rollout, explore
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.engines.rollout import rollout
from rlinf_isaac.envs.lanes import make_lanes
from rlinf_isaac.pi0.fast.explorer import GraphExplorer
from rlinf_isaac.pi0.flow_policy import FlowActorCritic
from rlinf_isaac.pi0.policy import Pi0Policy


class Result(NamedTuple):
    """Result of one held-out episode."""

    seed: int
    success: bool
    length: int


class Player:
    """Plays with one environment and one policy.

    Args:
        config: config of the job.
        norm_stats: bytes of the checkpoint's norm_stats.json.
        num_envs: slots of the environment.
        policy: the policy to play with, whose weights others may change between the calls of these methods.
        buffer: keeps the policy calls.
        sampler: samples them.
        env_python: interpreter that has the environment; None: the one that the task, or ISAACLAB_PYTHON, names.
    """

    def __init__(
        self,
        config: JobConfig,
        norm_stats: bytes,
        num_envs: int,
        policy: FlowActorCritic,
        buffer: RolloutBuffer,
        sampler: Sampler,
        env_python: str | None = None,
    ) -> None:
        self.config, self.policy, self.buffer = config, policy, buffer
        self.processor = make_processor(config, from_json(norm_stats))
        self.env = make_lanes(config, num_envs, env_python)
        self.explorer = Explorer(policy, self.processor, buffer, sampler)

    def explore(
        self, seeds: Sequence[int], indices: Sequence[int], iteration: int, rows: range
    ) -> Generator[int, None, Rollout]:
        """Play training episodes (`explorer.explore`), and keep them in `rows` of the buffer."""
        self.buffer.clear(rows)
        return explore(self.env, self.explorer, seeds, indices, iteration=iteration)

    def evaluate(self, seeds: Sequence[int]) -> list[Result]:
        """Play episodes without exploration noise, exactly as `eval` plays them with the same number of slots."""
        sampler = self.explorer.sampler
        sampler.refresh()
        plain = sampler.sampler if isinstance(sampler, GraphExplorer) else None
        device = self.config.compute.device
        policy = Pi0Policy(self.policy.model, self.processor, self.config.policy, device, sampler=plain)
        episodes = rollout(self.env, policy, seeds, policy_seed=self.config.eval.policy_seed)
        return [Result(each.seed, each.outcome == "success", each.length) for each in episodes]
