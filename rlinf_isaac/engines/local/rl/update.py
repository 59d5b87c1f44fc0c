"""One iteration's update of policy and value head.

The gradient of a minibatch is the sum of the gradients of its pieces, which the players compute (`gradient`), each for
its share; here they are added up, in a fixed order, and the optimiser takes its step.
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
"""Rows on which an update is looked at once more when it is over."""


class Gradient(NamedTuple):
    """Of part of a minibatch: name -> gradient, name -> that part's contribution to a mean, and the largest
    |ratio - 1|."""

    gradients: dict[str, np.ndarray]
    means: dict[str, float]
    ratio_error: float


def learning_rate(rl: RlConfig, iteration: int) -> float:
    """Of the policy in 1-based `iteration`: a linear rise over the first `rl.lr_warmup` iterations in which it learns.

    Adam's first steps go in the direction of the gradient's signs, however small and noisy it is.
    """
    learning = iteration - rl.warmup_iterations
    return rl.lr * min(1.0, max(0, learning) / max(1, rl.lr_warmup))


def make_optimiser(policy: FlowActorCritic) -> torch.optim.AdamW:
    """AdamW with a learning rate of its own for the value head."""
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
) -> dict[str, float]:
    """Some epochs over `experience`; returns the means of what was seen.

    Args:
        policy: whose parameters move.
        optimiser: of `make_optimiser`.
        experience: of this iteration.
        iteration: 1-based.
        compute: gives the gradients of the parts of a minibatch (`RolloutWorkers.gradients`); the second argument says
            whether the policy learns, or the value head alone.

    Raises:
        TrainingDiverged: a loss, the gradient, or the KL divergence after the last step is not finite.
    """
    rl = policy.rl
    seen: dict[str, list[float]] = {}
    first_ratio_error, epochs, stop = None, 0, False
    optimiser.param_groups[0]["lr"] = learning_rate(rl, iteration)
    for epoch in range(rl.epochs):
        batches = list(minibatches(len(experience), rl.minibatch, rl.seed, iteration, epoch))
        waiting: list[Gradient] = []  # of the policy, for its next step
        for number, indices in enumerate(batches, start=1):
            # The players compute the gradients of the minibatch's parts. Before the warm-up is over only the value head
            # learns.
            parts = compute(experience.rows(indices), iteration > rl.warmup_iterations)
            waiting += parts
            # The value head steps after every minibatch; the policy after `accumulate` of them, by their mean.
            policy_steps = number % (rl.accumulate or len(batches)) == 0 or number == len(batches)
            means = _step(policy, optimiser, parts, waiting if policy_steps else [], iteration)
            if policy_steps:
                waiting = []
            # Before the first step the policy is the one that played: its probability ratios have to be 1.
            if first_ratio_error is None:
                first_ratio_error = max(part.ratio_error for part in parts)
            for name, value in means.items():
                seen.setdefault(name, []).append(value)
            # The policy has moved as far from the one that played as it may: the rest of the update is left out.
            stop = 0 < rl.target_kl < means["train/approx_kl"]
            if stop:
                break
        epochs += 1
        if stop:
            break
    assert first_ratio_error is not None
    # One step can ruin a policy whose losses, taken before it, were fine.
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
    """The value head steps by the gradient of `parts`, one minibatch; the policy by the mean over those of
    `policy_parts`, some minibatches, or not at all if there are none."""
    rl = policy.rl
    critic: list[torch.nn.Parameter] = []
    actor: list[torch.nn.Parameter] = []
    for name, parameter in policy.checkpoint_module().named_parameters():
        is_critic = name.startswith("value_head.")
        found = [part.gradients[name] for part in (parts if is_critic else policy_parts) if name in part.gradients]
        parameter.grad = None
        if found:
            total = sum(found[1:], found[0]) / (1 if is_critic else len(policy_parts) / len(parts))
            parameter.grad = torch.from_numpy(total).to(parameter)
            (critic if is_critic else actor).append(parameter)
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
    policy: FlowActorCritic, processor: Processor, prompt: str, rows: Experience, total: int, size: int, learn: bool
) -> Gradient:
    """Gradient of the loss of some rows of a minibatch of `total` rows.

    Args:
        policy, processor: of one checkpoint.
        prompt: the task's.
        rows: this part of the minibatch.
        total: rows of the whole minibatch.
        size: rows of one forward pass, as many as a rollout's policy call has: for an equal number of rows the
            log-probabilities of rollout and update agree bit by bit. The last piece is filled up with rows that do not
            count.
        learn: whether the policy learns, or the value head alone.
    """
    rl = policy.rl
    policy.zero_grad(set_to_none=True)
    means: dict[str, float] = {}
    ratio_error = 0.0
    for start in range(0, len(rows), size):
        indices = np.arange(start, min(start + size, len(rows)))
        piece = rows.rows(np.resize(indices, size))
        # Log-probability of the chunks under the present weights, along the noise that the rollout drew.
        evaluated = evaluate(policy, processor, prompt, piece)
        log_prob, value, entropy = (tensor[: len(indices)] for tensor in evaluated)
        old, old_value, advantages, returns = (
            tensor[: len(indices)].to(log_prob.device)
            for tensor in (piece.log_probs, piece.values, piece.advantages, piece.returns)
        )
        # PPO's clipped surrogate, and a clipped Huber loss of the values; GRPO has no values.
        actor = policy_loss(log_prob, old, advantages, clip_ratio=rl.clip_ratio, dual_clip=rl.dual_clip)
        critic = value_loss(value, old_value, returns, value_clip=rl.value_clip, delta=rl.huber_delta)
        loss = critic if rl.algorithm == "ppo" else 0.0 * critic
        if learn:
            loss = loss + actor.loss - rl.entropy_bonus * entropy.mean()
        # The pieces' gradients add up to that of the mean over the whole minibatch.
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


def evaluate(policy: FlowActorCritic, processor: Processor, prompt: str, rows: Experience) -> Evaluated:
    """Log-probabilities and values of rows under the present weights, along the path of the rollout."""
    return evaluated_again(policy, processor, rows.images, rows.states, [prompt] * len(rows), rows.transitions)
