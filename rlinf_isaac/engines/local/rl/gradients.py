"""The gradient of a minibatch, in the process that has the rows: forward and backward passes in pieces of one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from rlinf_isaac.engines.local.rl.buffer import RolloutBuffer
from rlinf_isaac.engines.local.rl.ppo import policy_loss, value_loss
from rlinf_isaac.engines.local.rl.prefixes import on_device
from rlinf_isaac.pi0.flow_policy import FlowActorCritic

MEANS = ("train/actor_loss", "train/critic_loss", "train/entropy", "train/approx_kl", "train/clip_fraction")
"""Metrics of a minibatch: the first numbers of what `add_gradients` returns. The last is its largest ratio error."""


class Targets(NamedTuple):
    """What the losses compare the policy with, for R rows; on any device.

    Attributes:
        log_probs, values: (R,) float32, of the rollout.
        advantages, returns: (R,) float32.
    """

    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def rows(self, indices: np.ndarray) -> Targets:
        """A copy of the rows `indices`."""
        chosen = on_device(indices, self.values.device)
        return Targets(*(tensor[chosen] for tensor in self))


def pieces(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """`rows` in pieces of `size`; the last one is filled with its own rows again."""
    return [np.resize(rows[start : start + size], size) for start in range(0, len(rows), size)]


def add_gradients(
    policy: FlowActorCritic,
    buffer: RolloutBuffer,
    rows: np.ndarray,
    targets: Targets,
    total: float,
    size: int,
    learn: bool,
    following: np.ndarray | None = None,
) -> Tensor:
    """Add the gradient of the loss of one shard of a minibatch to ``.grad``. Nothing waits for a GPU.

    Args:
        policy: the policy and value head.
        buffer: has the rows.
        rows: rows of the shard.
        targets: what the losses compare these rows with, in their order.
        total: by what the sum over the rows is divided: the number of rows of the whole minibatch, or
            `Experience.weight` of this process's rows in it.
        size: rows of one forward pass. On a CPU it equals the batch size of the rollout's policy calls, because then
            the log-probabilities of rollout and update are bitwise equal. The last pass is filled with rows that do not
            count.
        learn: whether the policy learns, or only the value head.
        following: rows of the next shard, to fetch them ahead.

    Returns:
        (len(MEANS) + 1,) float64 on the policy's device: the shard's contributions to the means of the minibatch, and
        the largest |probability ratio - 1| in the shard.
    """
    rl = policy.rl
    earlier = _set_aside(policy)
    parts = pieces(rows, size)
    ahead = [*parts[1:], None if following is None else pieces(following, size)[0]]
    means, ratio_errors = [], []
    for number, (part, upcoming) in enumerate(zip(parts, ahead, strict=True)):
        own = Targets(*(tensor[number * size : (number + 1) * size] for tensor in targets))
        count = len(own.values)
        # Log-probabilities of the chunks under the current weights, for the denoising path of the rollout.
        evaluated = buffer.read(part, upcoming).score(policy)
        log_prob, value, entropy = (tensor[:count] for tensor in evaluated)
        # The clipped surrogate loss of PPO, and the clipped Huber loss of the values. GRPO does not use values.
        actor = policy_loss(log_prob, own.log_probs, own.advantages, clip_ratio=rl.clip_ratio, dual_clip=rl.dual_clip)
        critic = value_loss(value, own.values, own.returns, value_clip=rl.value_clip, delta=rl.huber_delta)
        loss = critic if rl.algorithm == "ppo" else 0.0 * critic
        if learn:
            loss = loss + actor.loss - rl.entropy_bonus * entropy.mean()
        # Weight by the share of the rows, so that the sum over all pieces is the gradient of the minibatch's mean loss.
        share = count / total
        (loss * share).backward()
        found = [actor.loss, critic, entropy.mean(), actor.approx_kl, actor.clip_fraction]
        means.append(share * torch.stack([each.detach().double() for each in found]))
        ratio_errors.append((log_prob.detach() - own.log_probs).expm1().abs().max().double())
    _add(earlier)
    summed = sum(means[1:], means[0])
    return torch.cat([torch.as_tensor(summed), torch.stack(ratio_errors).max()[None]])


def rescore(policy: FlowActorCritic, buffer: RolloutBuffer, rows: np.ndarray, size: int) -> Tensor:
    """Score `rows` once more by the kernels of the update, under the present weights, and note that in the buffer.

    Returns:
        (len(rows),) log-probability now minus that of the sampler, on the policy's device.
    """
    changes = []
    parts = pieces(rows, size)
    for number, (part, upcoming) in enumerate(zip(parts, [*parts[1:], None], strict=True)):
        # With gradients, although nobody asks for them: compiled layers have other kernels without.
        log_prob, value, _ = buffer.read(part, upcoming).score(policy)
        count = min(size, len(rows) - number * size)
        index = on_device(part[:count], buffer.device)
        changes.append(log_prob.detach()[:count] - buffer.log_prob[index])
        buffer.log_prob[index], buffer.value[index] = log_prob.detach()[:count], value.detach()[:count]
    return torch.cat(changes)


def _set_aside(policy: FlowActorCritic) -> Sequence[tuple[torch.nn.Parameter, Tensor]]:
    """Take the present gradients away, so that those of this minibatch are summed among themselves first."""
    kept = []
    for parameter in policy.parameters():
        if parameter.grad is not None:
            kept.append((parameter, parameter.grad))
            parameter.grad = None
    return kept


def _add(earlier: Sequence[tuple[torch.nn.Parameter, Tensor]]) -> None:
    both = [(parameter, before) for parameter, before in earlier if parameter.grad is not None]
    if both:
        torch._foreach_add_([before for _, before in both], [cast(Tensor, parameter.grad) for parameter, _ in both])
    for parameter, before in earlier:
        parameter.grad = before


def trained_parameters(policy: FlowActorCritic) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Names, as in a checkpoint, and values of all parameters that train."""
    for name, parameter in policy.checkpoint_module().named_parameters():
        if parameter.requires_grad:
            yield name, parameter
