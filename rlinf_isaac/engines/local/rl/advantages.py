"""Advantages of action chunks: generalised advantage estimation (PPO), and returns relative to a group (GRPO)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GROUP_EPSILON = 1e-6
SMALLEST_STD = 1e-2


def gae(rewards: np.ndarray, values: np.ndarray, gamma: float, gae_lambda: float) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns of one episode, each (T,) float64.

    delta_t = r_t + gamma V_{t+1} - V_t with V_T = 0, because every episode is played to its end and a time-out counts
    as a failure. A_t = sum_k (gamma lambda)^k delta_{t+k}; the target of the value head is the return A_t + V_t.
    Source: arXiv 1506.02438.

    Args:
        rewards: (T,) rewards of the chunks.
        values: (T,) values estimated before each chunk.
        gamma, gae_lambda: discount factors per chunk, not per control step.
    """
    rewards, values = np.asarray(rewards, np.float64), np.asarray(values, np.float64)
    deltas = rewards + gamma * np.append(values[1:], 0.0) - values
    advantages = np.zeros_like(deltas)
    running = 0.0
    for t in reversed(range(len(deltas))):
        running = deltas[t] + gamma * gae_lambda * running
        advantages[t] = running
    return advantages, advantages + values


def group_advantages(returns: np.ndarray, group_size: int) -> np.ndarray:
    """GRPO: (r - mean) / (std + 1e-6) of each episode's return within its group of consecutive episodes, (N,) float64.

    The standard deviation is that of the sample (n - 1), as in torch. The advantages of a group with equal returns are
    0, so it does not contribute. Source: arXiv 2402.03300.
    """
    groups = np.asarray(returns, np.float64).reshape(-1, group_size)
    centred = groups - groups.mean(1, keepdims=True)
    return (centred / (groups.std(1, ddof=1, keepdims=True) + GROUP_EPSILON)).reshape(-1)


def normalised(advantages: np.ndarray) -> np.ndarray:
    """Advantages with zero mean and unit variance over all chunks of an iteration.

    The divisor is at least `SMALLEST_STD`: if all episodes ended alike, the advantages are only the value head's noise
    and must not be scaled up.
    """
    return (advantages - advantages.mean()) / max(float(advantages.std()), SMALLEST_STD)


def chunk_rewards(
    rewards: Sequence[float] | np.ndarray, subtasks: Sequence[Sequence[str]], subtask_reward: float = 0.0
) -> np.ndarray:
    """Rewards (T,) of the chunks of one episode, plus `subtask_reward` in the chunk that first reaches a subtask."""
    shaped = np.array(rewards, np.float64)
    seen: set[str] = set()
    for t, reached in enumerate(subtasks):
        new = set(reached) - seen
        shaped[t] += subtask_reward * len(new)
        seen |= new
    return shaped
