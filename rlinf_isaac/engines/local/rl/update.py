"""The update of policy and value head in one iteration.

Each worker computes the gradient of its shard of a minibatch (`gradient`). Here the shards' gradients are summed in a
fixed order, and the optimiser takes its step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.exploration import evaluated_again
from rlinf_isaac.engines.local.rl.experience import Experience, minibatches
from rlinf_isaac.engines.local.rl.ppo import explained_variance, policy_loss, value_loss
from rlinf_isaac.ground.errors import TrainingDiverged
from rlinf_isaac.pi0.flow_policy import Evaluated, FlowActorCritic
from rlinf_isaac.pi0.policy import Processor

LAST_LOOK = 64
"""Number of rows on which the KL divergence is computed after the last step of an update."""


class Gradient(NamedTuple):
    """Gradients of one shard of a minibatch.

    Attributes:
        gradients: name of the parameter -> gradient.
        means: name of the metric -> the shard's contribution to the mean over the minibatch.
        ratio_error: largest |probability ratio - 1| in the shard.
    """

    gradients: dict[str, np.ndarray]
    means: dict[str, float]
    ratio_error: float


def learning_rate(rl: RlConfig, iteration: int) -> float:
    """Learning rate of the policy at `iteration` (1-based): linear warm-up over the first `rl.lr_warmup` iterations in
    which the policy learns.

    The warm-up is needed because Adam's first steps have full size in every coordinate, even if the gradient is small
    and noisy.
    """
    learning = iteration - rl.warmup_iterations
    return rl.lr * min(1.0, max(0, learning) / max(1, rl.lr_warmup))


def make_optimiser(policy: FlowActorCritic) -> torch.optim.AdamW:
    """AdamW with two parameter groups: the policy, and the value head with its own learning rate."""
    rl = policy.rl
    actor = {"params": [parameter for _, parameter in policy.actor_parameters()], "lr": rl.lr}
    critic = {"params": list(policy.heads["value_head"].parameters()), "lr": rl.value_lr}
    return torch.optim.AdamW([actor, critic], betas=(rl.beta1, rl.beta2), weight_decay=rl.weight_decay)


def update(
    policy: FlowActorCritic,
    optimiser: torch.optim.AdamW,
    experience: Experience,
    iteration: int,
    compute: Callable[[Experience, bool], Sequence[Gradient]],
    *,
    depth: int | None = None,
    lr_factor: float = 1.0,
) -> dict[str, float]:
    """Update `policy` with `rl.epochs` epochs over `experience`; returns metrics, averaged over the minibatches.

    Args:
        policy: the policy and value head to update.
        optimiser: optimiser from `make_optimiser`.
        experience: experience of this iteration.
        iteration: number of the iteration, 1-based.
        compute: returns the gradients of the shards of a minibatch (`RolloutWorkers.gradients`); its second argument
            says whether the policy learns, or only the value head.
        depth: how many iterations led to the weights after this update, for the schedules; `iteration` unless the
            training has gone back.
        lr_factor: what the learning rate of the policy is multiplied by.

    Raises:
        TrainingDiverged: a loss, the gradient, or the KL divergence after the last step is not finite.
    """
    rl = policy.rl
    seen: dict[str, list[float]] = {}
    first_ratio_error, epochs, stop = None, 0, False
    depth = iteration if depth is None else depth
    optimiser.param_groups[0]["lr"] = learning_rate(rl, depth) * lr_factor
    for epoch in range(rl.epochs):
        # Shuffle the action chunks and cut them into minibatches.
        batches = list(minibatches(len(experience), rl.minibatch, rl.seed, iteration, epoch))
        waiting: list[Gradient] = []  # gradients of the policy that are accumulated for its next step
        for number, indices in enumerate(batches, start=1):
            # The workers compute the gradients of the shards of the minibatch. During the first `warmup_iterations`
            # only the value head learns.
            parts = compute(experience.rows(indices), depth > rl.warmup_iterations)
            waiting += parts
            # The value head takes a step after every minibatch. The policy takes one after `accumulate` minibatches
            # (0: only at the end of the epoch), and after the epoch's last, with the mean of their gradients.
            policy_steps = number % (rl.accumulate or len(batches)) == 0 or number == len(batches)
            means = _step(policy, optimiser, parts, waiting if policy_steps else [], iteration)
            if policy_steps:
                waiting = []
            # Before the first step the weights are those of the rollout, so all probability ratios should be 1.
            if first_ratio_error is None:
                first_ratio_error = max(part.ratio_error for part in parts)
            for name, value in means.items():
                seen.setdefault(name, []).append(value)
            # Early stopping: end the update if the KL divergence from the rollout's policy, estimated on this
            # minibatch, exceeds `target_kl`.
            stop = 0 < rl.target_kl < means["train/approx_kl"]
            if stop:
                break
        epochs += 1
        if stop:
            break
    assert first_ratio_error is not None
    # The losses were computed before each step, so they do not show whether the last step has ruined the policy.
    # The KL divergence on some rows does.
    sample = experience.rows(batches[0][:LAST_LOOK])
    final_kl = sum(part.means["train/approx_kl"] for part in compute(sample, False))
    if not math.isfinite(final_kl):
        raise _diverged(rl, [f"approx_kl {final_kl}"], iteration)
    return {
        **{name: float(np.mean(values)) for name, values in seen.items()},
        "train/final_approx_kl": final_kl,
        "train/first_ratio_error": first_ratio_error,
        "train/epochs": float(epochs),
        "train/stopped_early": float(stop),
        "train/explained_variance": explained_variance(experience.values, experience.returns),
    }


def _step(
    policy: FlowActorCritic,
    optimiser: torch.optim.AdamW,
    parts: Sequence[Gradient],
    policy_parts: Sequence[Gradient],
    iteration: int,
) -> dict[str, float]:
    """Take one optimiser step; returns the metrics of the minibatch.

    Args:
        policy: the policy and value head.
        optimiser: optimiser from `make_optimiser`.
        parts: gradients of the shards of one minibatch; the value head uses their sum.
        policy_parts: gradients of the shards of several minibatches; the policy uses the mean over the minibatches. If
            empty, the policy does not change.
        iteration: number of the iteration, for messages.
    """
    rl = policy.rl
    critic: list[torch.nn.Parameter] = []
    actor: list[torch.nn.Parameter] = []
    # Sum the gradients of the shards in a fixed order; the policy's sum is divided by the number of minibatches.
    for name, parameter in policy.checkpoint_module().named_parameters():
        is_critic = name.startswith("value_head.")
        found = [part.gradients[name] for part in (parts if is_critic else policy_parts) if name in part.gradients]
        parameter.grad = None
        if found:
            total = sum(found[1:], found[0]) / (1 if is_critic else len(policy_parts) / len(parts))
            parameter.grad = torch.from_numpy(total).to(parameter)
            (critic if is_critic else actor).append(parameter)
    # Clip the gradients of value head and policy separately, and stop if a loss or a norm is not finite.
    means = {name: sum(part.means[name] for part in parts) for name in parts[0].means}
    means["train/critic_grad_norm"] = float(torch.nn.utils.clip_grad_norm_(critic, rl.clip_grad_norm))
    if actor:
        means["train/grad_norm"] = float(torch.nn.utils.clip_grad_norm_(actor, rl.clip_grad_norm))
    if wrong := [f"{name} {value}" for name, value in means.items() if not math.isfinite(value)]:
        raise _diverged(rl, wrong, iteration)
    optimiser.step()
    return means


def _diverged(rl: RlConfig, wrong: Sequence[str], iteration: int) -> TrainingDiverged:
    return TrainingDiverged(
        f"{', '.join(wrong)} in iteration {iteration}; the checkpoints before it are kept. Lower rl.lr (now {rl.lr}), "
        f"or set rl.target_kl (now {rl.target_kl}) to end updates earlier"
    )


def gradient(
    policy: FlowActorCritic, processor: Processor, rows: Experience, total: int, size: int, learn: bool
) -> Gradient:
    """Gradient of the loss of one shard of a minibatch.

    Args:
        policy, processor: the policy, with its pre- and post-processing.
        rows: rows of the shard.
        total: number of rows of the whole minibatch.
        size: rows of one forward pass. It equals the batch size of the rollout's policy calls, because then the
            log-probabilities of rollout and update are bitwise equal. The last pass is filled with rows that do not
            count.
        learn: whether the policy learns, or only the value head.
    """
    rl = policy.rl
    policy.zero_grad(set_to_none=True)
    means: dict[str, float] = {}
    ratio_error = 0.0
    for start in range(0, len(rows), size):
        indices = np.arange(start, min(start + size, len(rows)))
        piece = rows.rows(np.resize(indices, size))
        # Log-probabilities of the chunks under the current weights, for the denoising path of the rollout.
        evaluated = evaluate(policy, processor, piece)
        log_prob, value, entropy = (tensor[: len(indices)] for tensor in evaluated)
        old, old_value, advantages, returns = (
            tensor[: len(indices)].to(log_prob.device)
            for tensor in (piece.log_probs, piece.values, piece.advantages, piece.returns)
        )
        # The clipped surrogate loss of PPO, and the clipped Huber loss of the values. GRPO does not use values.
        actor = policy_loss(log_prob, old, advantages, clip_ratio=rl.clip_ratio, dual_clip=rl.dual_clip)
        critic = value_loss(value, old_value, returns, value_clip=rl.value_clip, delta=rl.huber_delta)
        loss = critic if rl.algorithm == "ppo" else 0.0 * critic
        if learn:
            loss = loss + actor.loss - rl.entropy_bonus * entropy.mean()
        # Weight by the share of the rows, so that the sum over all pieces is the gradient of the minibatch's mean loss.
        share = len(indices) / total
        (loss * share).backward()
        ratio_error = max(ratio_error, float((log_prob.detach() - old).expm1().abs().max()))
        for name, tensor in {
            "train/actor_loss": actor.loss,
            "train/critic_loss": critic,
            "train/entropy": entropy.mean(),
            "train/approx_kl": actor.approx_kl,
            "train/clip_fraction": actor.clip_fraction,
        }.items():
            means[name] = means.get(name, 0.0) + share * float(tensor.detach())
    gradients = {
        name: parameter.grad.cpu().numpy()
        for name, parameter in policy.checkpoint_module().named_parameters()
        if parameter.grad is not None
    }
    return Gradient(gradients, means, ratio_error)


def evaluate(policy: FlowActorCritic, processor: Processor, rows: Experience) -> Evaluated:
    """Log-probabilities and values of rows under the present weights, along the path of the rollout."""
    return evaluated_again(policy, processor, rows.images, rows.states, rows.prompts.tolist(), rows.transitions)
