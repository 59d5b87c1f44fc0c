"""The experience of an iteration: one row per action chunk, ordered by episode, then by policy call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.local.rl.advantages import chunk_rewards, gae, group_advantages, normalised
from rlinf_isaac.engines.local.rl.gradients import Targets


@dataclass(frozen=True)
class Played:
    """One training episode of T action chunks.

    Attributes:
        index: index of the episode in its iteration.
        seed: reset seed of the environment.
        prompt: the instruction.
        success: whether the task's success term was reached.
        length: number of control steps.
        rewards: (T,) rewards of the environment.
        subtasks: for each chunk, the subtask flags that were reached in it.
        rows: (T,) rows of the chunks in the rollout buffer.
    """

    index: int
    seed: int
    prompt: str
    success: bool
    length: int
    rewards: np.ndarray
    subtasks: tuple[tuple[str, ...], ...]
    rows: np.ndarray


@dataclass(frozen=True)
class Experience:
    """All action chunks of an iteration, R of them.

    Attributes:
        rows: (R,) int64, their rows in the rollout buffer.
        targets: what the losses compare the policy with, on the policy's device.
        values, returns: (R,) float32, on the CPU.
    """

    rows: np.ndarray
    targets: Targets
    values: torch.Tensor
    returns: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)


def ordered(episodes: Sequence[Played]) -> tuple[list[Played], np.ndarray]:
    """Complete episodes in the order of their indices, and the rows of all their chunks."""
    episodes = sorted(episodes, key=lambda episode: episode.index)
    return episodes, np.concatenate([each.rows for each in episodes])


def make_experience(
    episodes: Sequence[Played], rows: np.ndarray, log_probs: torch.Tensor, values: torch.Tensor, rl: RlConfig
) -> Experience:
    """Compute advantages and returns.

    Args:
        episodes, rows: the episodes of an iteration, as of `ordered`.
        log_probs, values: of all rows of the rollout buffer, on the policy's device.
        rl: how to compute them.
    """
    log_probs, values = (tensor[torch.from_numpy(rows).to(tensor.device)] for tensor in (log_probs, values))
    estimated = values.cpu()
    advantages, returns = advantages_of(episodes, estimated.numpy(), rl)
    targets = Targets(log_probs, values, advantages.to(values.device), returns.to(values.device))
    return Experience(rows, targets, estimated, returns)


def advantages_of(episodes: Sequence[Played], values: np.ndarray, rl: RlConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns, each (R,) float32, of episodes in the order of their indices; `values` (R,) are those
    that were estimated before each chunk."""
    subtask_reward = rl.subtask_reward if rl.reward == "shaped" else 0.0
    rewards = [chunk_rewards(each.rewards, each.subtasks, subtask_reward) for each in episodes]
    if rl.algorithm == "grpo":
        scores = group_advantages(np.array([each.sum() for each in rewards]), rl.group_size)
        advantages = np.concatenate([np.full(len(each), score) for each, score in zip(rewards, scores, strict=True)])
        returns = np.concatenate([np.full(len(each), each.sum()) for each in rewards])
    else:
        ends = np.cumsum([len(each) for each in rewards])[:-1]
        estimates = np.split(values, ends)
        pairs = [gae(each, own, rl.gamma, rl.gae_lambda) for each, own in zip(rewards, estimates, strict=True)]
        advantages = normalised(np.concatenate([advantage for advantage, _ in pairs]))
        returns = np.concatenate([each for _, each in pairs])
    return torch.from_numpy(advantages.astype(np.float32)), torch.from_numpy(returns.astype(np.float32))


def minibatches(rows: int, size: int, seed: int, iteration: int, epoch: int) -> Iterator[np.ndarray]:
    """Indices of the minibatches of one epoch: a random permutation, cut into pieces of `size`; a smaller rest is left
    out. If there are fewer rows than `size`, all of them form one minibatch.
    """
    order = np.random.default_rng([seed, 3, iteration, epoch]).permutation(rows)
    size = min(size, rows)
    for start in range(0, rows - size + 1, size):
        yield order[start : start + size]
