"""Advantages of action chunks: generalised advantage estimation (PPO), and returns relative to a group (GRPO)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GROUP_EPSILON = 1e-6
SMALLEST_STD = 1e-2


def gae(rewards: np.ndarray, values: np.ndarray, gamma: float, gae_lambda: float) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns of one episode, each (T,) float64.

    delta_t = r_t + gamma V_{t+1} - V_t with V_T = 0 (every episode is played to its end, a time-out is a failure), and
    A_t = sum_k (gamma lambda)^k delta_{t+k}; the return that the value head learns is A_t + V_t. Source: arXiv
    1506.02438.

    Args:
        rewards: (T,) of the chunks.
        values: (T,) estimated before each chunk.
        gamma, gae_lambda: per chunk, not per control step.
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

    The standard deviation is that of the sample (n - 1), as torch's. A group whose returns are all equal teaches
    nothing: its advantages are 0. Source: arXiv 2402.03300.
    """
    groups = np.asarray(returns, np.float64).reshape(-1, group_size)
    centred = groups - groups.mean(1, keepdims=True)
    return (centred / (groups.std(1, ddof=1, keepdims=True) + GROUP_EPSILON)).reshape(-1)


def normalised(advantages: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance over all chunks of an iteration.

    Where all episodes ended alike, what is left is the value head's noise; it stays small.
    """
    return (advantages - advantages.mean()) / max(float(advantages.std()), SMALLEST_STD)


def chunk_rewards(
    rewards: Sequence[float] | np.ndarray, subtasks: Sequence[Sequence[str]], subtask_reward: float = 0.0
) -> np.ndarray:
    """Rewards (T,) of the chunks of one episode, plus `subtask_reward` for each subtask where it is first reached."""
    shaped = np.array(rewards, np.float64)
    seen: set[str] = set()
    for t, reached in enumerate(subtasks):
        new = set(reached) - seen
        shaped[t] += subtask_reward * len(new)
        seen |= new
    return shaped
