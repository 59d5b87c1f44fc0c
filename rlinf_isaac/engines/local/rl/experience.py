"""The experience of an iteration: one row per action chunk, ordered by episode, then by policy call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.local.rl.advantages import chunk_rewards, gae, group_advantages, normalised
from rlinf_isaac.engines.local.rl.gradients import Targets
from rlinf_isaac.engines.local.training.team import ALONE, Team


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
    """The action chunks of an iteration: R in all processes that train together, of which this one has played K.

    Attributes:
        rows: (K,) int64, the rows of its own chunks in its rollout buffer.
        targets: what the losses compare the policy with at its own chunks, on the policy's device.
        episodes: those of all processes, in the order of their indices.
        values, returns: (R,) float32, of all chunks, on the CPU.
    """

    rows: np.ndarray
    targets: Targets
    episodes: Sequence[Played]
    values: torch.Tensor
    returns: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def weight(self, rows: int) -> float:
        """Of how many chunks the mean is, if `rows` of this process stand for its share of all chunks.

        Every process has as many rows in a minibatch, though one whose episodes were longer has more chunks. So a row
        counts as the K / R of its process: divided by this number, the losses of all processes add up to an estimate
        of the mean over all chunks that favours no process. For a single process it is `rows`.
        """
        return rows * len(self) / len(self.rows)


def ordered(episodes: Sequence[Played]) -> tuple[list[Played], np.ndarray]:
    """Complete episodes in the order of their indices, and the rows of all their chunks."""
    episodes = sorted(episodes, key=lambda episode: episode.index)
    return episodes, np.concatenate([each.rows for each in episodes])


def make_experience(
    episodes: Sequence[Played],
    rows: np.ndarray,
    log_probs: torch.Tensor,
    values: torch.Tensor,
    rl: RlConfig,
    team: Team = ALONE,
) -> Experience:
    """Compute advantages and returns, which are compared with those of all processes. Collective call of the team.

    Args:
        episodes, rows: the episodes of an iteration that this process has played, as of `ordered`.
        log_probs, values: of all rows of the rollout buffer, on the policy's device.
        rl: how to compute them.
        team: the processes; in the order of their ranks, the indices of their episodes ascend.
    """
    log_probs, values = (tensor[torch.from_numpy(rows).to(tensor.device)] for tensor in (log_probs, values))
    parts = team.gather((episodes, values.cpu().numpy()))
    everyone = [episode for part, _ in parts for episode in part]
    estimated = np.concatenate([part for _, part in parts])
    advantages, returns = advantages_of(everyone, estimated, rl)
    first = sum(len(part) for _, part in parts[: team.rank])
    own = slice(first, first + len(rows))
    targets = Targets(log_probs, values, advantages[own].to(values.device), returns[own].to(values.device))
    return Experience(rows, targets, everyone, torch.from_numpy(estimated), returns)


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


def minibatches(experience: Experience, rl: RlConfig, iteration: int, epoch: int, team: Team) -> Iterator[np.ndarray]:
    """Indices of this process's chunks in the minibatches of one epoch: a random permutation of its own, cut.

    A minibatch has `rl.minibatch` rows, the same number from every process. There are as many as the chunks of all
    processes fill; a smaller rest is left out. So a process that has more chunks than others leaves some of them out,
    drawn anew in every epoch, and one that has fewer goes on with a further permutation. If all processes have fewer
    chunks than `rl.minibatch`, all chunks form one minibatch.
    """
    stream = [rl.seed, 3, iteration, epoch, *([team.rank] if team.size > 1 else [])]
    random, own = np.random.default_rng(stream), len(experience.rows)
    count = len(experience) // rl.minibatch
    if count == 0:
        yield random.permutation(own)
        return
    size = rl.minibatch // team.size
    order = np.concatenate([random.permutation(own) for _ in range(-(-count * size // own))])
    for start in range(0, count * size, size):
        yield order[start : start + size]
