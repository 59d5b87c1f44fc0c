"""The experience of an iteration: one row per action chunk, ordered by episode, then by policy call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.local.rl.advantages import chunk_rewards, gae, group_advantages, normalised
from rlinf_isaac.pi0.flow_policy import Transitions


@dataclass(frozen=True)
class Played:
    """One training episode. Arrays have one row per action chunk, T in all.

    Attributes:
        index: index of the episode in its iteration.
        seed: reset seed of the environment.
        prompt: the instruction.
        success: whether the task's success term was reached.
        length: number of control steps.
        rewards: (T,) rewards of the environment.
        subtasks: for each chunk, the subtask flags that were reached in it.
        arrays: inputs and outputs of the policy: ``image.<camera>``, ``state``, ``before``, ``after``, ``steps``,
            ``log_prob``, ``value``.
    """

    index: int
    seed: int
    prompt: str
    success: bool
    length: int
    rewards: np.ndarray
    subtasks: tuple[tuple[str, ...], ...]
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Experience:
    """All action chunks of an iteration, R rows.

    Attributes:
        images: camera -> (R, h, w, 3) uint8.
        states: (R, D) in robot units.
        prompts: (R,) instructions.
        transitions: the stochastic denoising steps, on the CPU.
        log_probs, values, advantages, returns: (R,) float32, on the CPU.
    """

    images: Mapping[str, np.ndarray]
    states: np.ndarray
    prompts: np.ndarray
    transitions: Transitions
    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def __len__(self) -> int:
        return len(self.states)

    def rows(self, indices: np.ndarray) -> Experience:
        """A copy of the rows `indices`, in this order."""
        chosen = torch.from_numpy(indices)
        return Experience(
            images={view: image[indices] for view, image in self.images.items()},
            states=self.states[indices],
            prompts=self.prompts[indices],
            transitions=Transitions(*(tensor[chosen] for tensor in self.transitions)),
            log_probs=self.log_probs[chosen],
            values=self.values[chosen],
            advantages=self.advantages[chosen],
            returns=self.returns[chosen],
        )


def make_experience(episodes: Sequence[Played], rl: RlConfig) -> Experience:
    """Concatenate complete episodes, in the order of their indices, and compute advantages and returns."""
    episodes = sorted(episodes, key=lambda episode: episode.index)
    subtask_reward = rl.subtask_reward if rl.reward == "shaped" else 0.0
    rewards = [chunk_rewards(each.rewards, each.subtasks, subtask_reward) for each in episodes]
    if rl.algorithm == "grpo":
        scores = group_advantages(np.array([each.sum() for each in rewards]), rl.group_size)
        advantages = np.concatenate([np.full(len(each), score) for each, score in zip(rewards, scores, strict=True)])
        returns = np.concatenate([np.full(len(each), each.sum()) for each in rewards])
    else:
        pairs = [
            gae(each, episode.arrays["value"], rl.gamma, rl.gae_lambda)
            for each, episode in zip(rewards, episodes, strict=True)
        ]
        advantages = normalised(np.concatenate([advantage for advantage, _ in pairs]))
        returns = np.concatenate([each for _, each in pairs])
    rows = {name: np.concatenate([each.arrays[name] for each in episodes]) for name in episodes[0].arrays}
    tensor = {name: torch.from_numpy(rows[name]) for name in ("before", "after", "steps", "log_prob", "value")}
    return Experience(
        images={name.removeprefix("image."): rows[name] for name in rows if name.startswith("image.")},
        states=rows["state"],
        prompts=np.repeat([each.prompt for each in episodes], [len(each.rewards) for each in episodes]),
        transitions=Transitions(tensor["before"], tensor["after"], tensor["steps"]),
        log_probs=tensor["log_prob"],
        values=tensor["value"],
        advantages=torch.from_numpy(advantages.astype(np.float32)),
        returns=torch.from_numpy(returns.astype(np.float32)),
    )


def minibatches(rows: int, size: int, seed: int, iteration: int, epoch: int) -> Iterator[np.ndarray]:
    """Indices of the minibatches of one epoch: a random permutation, cut into pieces of `size`; a smaller rest is left
    out. If there are fewer rows than `size`, all of them form one minibatch.
    """
    order = np.random.default_rng([seed, 3, iteration, epoch]).permutation(rows)
    size = min(size, rows)
    for start in range(0, rows - size + 1, size):
        yield order[start : start + size]
