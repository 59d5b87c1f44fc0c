"""Plays the episodes and computes the gradients of a training, in this process or in others."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Self

import numpy as np
import torch

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.exploration import PlainSampler, Sampler
from rlinf_isaac.engines.local.rl import gradients
from rlinf_isaac.engines.local.rl.buffer import BufferShape, RolloutBuffer
from rlinf_isaac.engines.local.rl.experience import Experience
from rlinf_isaac.engines.local.rl.explorer import Rollout
from rlinf_isaac.engines.local.rl.memory import MemoryPlan, free_memory, plan_on_cpu, plan_on_gpu, prefix_tokens
from rlinf_isaac.engines.local.rl.player import Player, Result
from rlinf_isaac.engines.local.rl.shared import local_tensors
from rlinf_isaac.engines.local.rl.workers import WorkerProcesses
from rlinf_isaac.engines.local.sft.memory import GIB
from rlinf_isaac.engines.policies import compiles, make_processor
from rlinf_isaac.pi0.fast.explorer import GraphExplorer
from rlinf_isaac.pi0.flow_policy import FlowActorCritic
from rlinf_isaac.pi0.observation import CAMERAS


class Players:
    """Context manager that plays and computes gradients. On a GPU, and with one worker, this process does it itself.

    Args:
        config: config of the job.
        norm_stats: bytes of the checkpoint's norm_stats.json.
        policy: the policy that trains; with several workers its parameters move into shared memory.
        env_python: interpreter that has the environment; None: the one that the task, or ISAACLAB_PYTHON, names.
        neighbours: number of processes of this training, with this one, that share the machine's memory.

    Attributes:
        buffer: what the update reads of the policy calls.
        plan: where it lies.

    Raises:
        InvalidJob: memory is too small for what the config demands.
    """

    def __init__(
        self,
        config: JobConfig,
        norm_stats: bytes,
        policy: FlowActorCritic,
        env_python: str | None = None,
        neighbours: int = 1,
    ) -> None:
        self.config, self.policy = config, policy
        self.device = policy.model.action_in_proj.weight.device
        # Before memory is planned, because it derives tensors from the weights.
        sampler: Sampler = GraphExplorer(policy) if compiles(config.compute) else PlainSampler(policy)
        prompt_tokens = _prompt_tokens(config, norm_stats)
        self.plan = _plan(config, self.device, prefix_tokens(config, prompt_tokens), free_memory() // neighbours)
        cameras = tuple(camera for camera in CAMERAS if camera in task_of(config).cameras)
        shape = BufferShape(
            config, self.plan.rows, policy.stochastic_steps, cameras, prompt_tokens, self.plan.keeps_prefix
        )
        self.player: Player | None = None
        self.processes: WorkerProcesses | None = None
        if self.device.type == "cuda" or config.rl.workers == 1:
            numbers = {**shape.numbers(), **shape.prefixes(self.plan.near)}
            tensors = local_tensors(numbers, self.device) | local_tensors(shape.images(), self.device, pinned=True)
            self.buffer = RolloutBuffer(shape, tensors)
            self.player = Player(config, norm_stats, config.rl.num_envs, policy, self.buffer, sampler, env_python)
        else:
            self.processes = WorkerProcesses(config, norm_stats, policy, shape, env_python)
            self.buffer = self.processes.buffer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.player is not None:
            self.player.env.close()
        if self.processes is not None:
            self.processes.close(failed=kind is not None)

    def explore(
        self, seeds: Sequence[int], indices: Sequence[int], iteration: int
    ) -> Generator[int, None, list[Rollout]]:
        """Play one training episode per seed; `indices` are their indices in the iteration. Yields how many have ended,
        and returns one rollout per worker."""
        if self.processes is not None:
            return (yield from self.processes.explore(seeds, indices, iteration))
        assert self.player is not None
        return [(yield from self.player.explore(seeds, indices, iteration, range(self.plan.rows)))]

    def rescore(self, rows: np.ndarray) -> np.ndarray:
        """Score `rows` of the buffer again if the kernels of the update are not those of the rollout, or the config
        demands it.

        Returns:
            |log-probability now - that of the sampler| of the rows, or of none if they are not scored again.
        """
        wanted = self.config.rl.rescore
        if self.player is None or wanted == "never" or (wanted == "auto" and self.device.type != "cuda"):
            return np.zeros(0)
        return gradients.rescore(self.policy, self.buffer, rows, self.plan.piece).abs().double().cpu().numpy()

    def add_gradients(
        self, experience: Experience, indices: np.ndarray, learn: bool, following: np.ndarray | None
    ) -> torch.Tensor:
        """As `gradients.add_gradients`, for the chunks `indices` of `experience`; `following` are the next ones."""
        rows, targets = experience.rows[indices], experience.targets.rows(indices)
        if self.processes is not None:
            return self.processes.add_gradients(rows, targets, experience.weight(len(rows)), learn)
        ahead = None if following is None else experience.rows[following]
        return gradients.add_gradients(
            self.policy, self.buffer, rows, targets, experience.weight(len(rows)), self.plan.piece, learn, ahead
        )

    def evaluate(self, seeds: Sequence[int]) -> list[Result]:
        """Deterministic episodes, in the order of their seeds."""
        if self.processes is not None:
            return sorted(self.processes.evaluate(seeds))
        assert self.player is not None
        return sorted(self.player.evaluate(seeds))

    def memory(self) -> dict[str, float]:
        """GiB of the prefixes on the policy's device and in pinned host memory, as metrics."""
        prefixes = self.buffer.prefixes
        if prefixes is None:
            return {}
        near = prefixes.near.numel() * prefixes.near.element_size()
        return {"memory/prefixes_gib": near / GIB, "memory/prefixes_on_host_gib": prefixes.host_bytes / GIB}


def _plan(config: JobConfig, device: torch.device, tokens: int, host: int) -> MemoryPlan:
    if device.type == "cuda":
        torch.cuda.empty_cache()  # which has what the float32 weights took before they were rounded
        return plan_on_gpu(config, tokens, torch.cuda.mem_get_info(device)[0], host)
    return plan_on_cpu(config, tokens, host)


def _prompt_tokens(config: JobConfig, norm_stats: bytes) -> int:
    """Most tokens of a prompt of the task."""
    if config.model.discrete_state_input:
        return config.model.max_token_len
    tokenizer = make_processor(config, from_json(norm_stats)).tokenizer
    prompts = task_of(config).prompts or ("",)
    return max(len(tokenizer.encode(prompt)) for prompt in prompts)
