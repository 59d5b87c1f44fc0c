"""One iteration's update of policy and value head."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from rlinf_isaac.config.schema import RlConfig
from rlinf_isaac.engines.local.rl.experience import Experience, minibatches
from rlinf_isaac.engines.local.rl.ppo import PolicyLoss, explained_variance, policy_loss, value_loss
from rlinf_isaac.errors import TrainingDiverged
from rlinf_isaac.pi0.flow_policy import Evaluated, FlowActorCritic, Transitions
from rlinf_isaac.pi0.policy import Processor


def make_optimiser(policy: FlowActorCritic) -> torch.optim.AdamW:
    """AdamW with a learning rate of its own for the value head."""
    rl = policy.rl
    actor = {"params": [parameter for _, parameter in policy.actor_parameters()], "lr": rl.lr}
    critic = {"params": list(policy.heads["value_head"].parameters()), "lr": rl.value_lr}
    return torch.optim.AdamW([actor, critic], betas=(rl.beta1, rl.beta2), weight_decay=rl.weight_decay)


class Parts(NamedTuple):
    """The parts of one minibatch's loss."""

    actor: PolicyLoss
    critic: torch.Tensor
    entropy: torch.Tensor


class Updater:
    """Trains `policy` on the experience of one iteration after the other.

    Args:
        policy: on the device where it trains.
        processor: of its checkpoint.
        optimiser: of `make_optimiser`.
        prompt: the task's.
        rows: of one forward pass, as many as a rollout's policy call has, so that log-probabilities agree bit by bit.
    """

    def __init__(
        self,
        policy: FlowActorCritic,
        processor: Processor,
        optimiser: torch.optim.AdamW,
        prompt: str,
        rows: int,
    ) -> None:
        self.policy, self.processor, self.optimiser = policy, processor, optimiser
        self.prompt, self.rows = prompt, rows

    def update(self, experience: Experience, iteration: int) -> dict[str, float]:
        """Some epochs over `experience`; returns the means of what was seen.

        Raises:
            TrainingDiverged: a loss or the gradient is not finite; the weights are those before that step.
        """
        rl = self.policy.rl
        learn_policy = iteration > rl.warmup_iterations
        seen: dict[str, list[float]] = {}
        epochs = 0
        for epoch in range(rl.epochs):
            kls = []
            for indices in minibatches(len(experience), rl.minibatch, rl.seed, iteration, epoch):
                step = self._step(experience, indices, iteration, learn_policy)
                if not seen:
                    step["train/first_ratio_error"] = self.first_ratio_error
                for name, value in step.items():
                    seen.setdefault(name, []).append(value)
                kls.append(step["train/approx_kl"])
                if rl.target_kl and kls[-1] > rl.target_kl:
                    break
            epochs += 1
            if rl.target_kl and kls[-1] > rl.target_kl:
                break
        metrics = {name: float(np.mean(values)) for name, values in seen.items()}
        metrics["train/last_approx_kl"] = kls[-1]
        metrics["train/epochs"] = float(epochs)
        metrics["train/explained_variance"] = explained_variance(experience.values, experience.returns)
        return metrics

    def _step(
        self, experience: Experience, indices: np.ndarray, iteration: int, learn_policy: bool
    ) -> dict[str, float]:
        rl = self.policy.rl
        self.optimiser.zero_grad(set_to_none=True)
        totals: dict[str, float] = {}
        self.first_ratio_error = 0.0
        for piece, part in self._pieces(indices):
            parts, error = self._losses(experience, piece, part)
            loss = parts.critic * (rl.algorithm == "ppo")
            if learn_policy:
                loss = loss + parts.actor.loss - rl.entropy_bonus * parts.entropy
            share = part / len(indices)
            (loss * share).backward()
            self.first_ratio_error = max(self.first_ratio_error, error)
            for name, value in {
                "train/actor_loss": parts.actor.loss,
                "train/critic_loss": parts.critic,
                "train/entropy": parts.entropy,
                "train/approx_kl": parts.actor.approx_kl,
                "train/clip_fraction": parts.actor.clip_fraction,
            }.items():
                totals[name] = totals.get(name, 0.0) + share * float(value.detach())
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        totals["train/grad_norm"] = float(torch.nn.utils.clip_grad_norm_(parameters, rl.clip_grad_norm))
        if not all(math.isfinite(value) for value in totals.values()):
            wrong = ", ".join(f"{name} {value}" for name, value in totals.items() if not math.isfinite(value))
            raise TrainingDiverged(
                f"{wrong} in iteration {iteration}; the checkpoints before it are kept. Lower rl.lr (now {rl.lr}), or "
                f"set rl.target_kl (now {rl.target_kl}) to end updates earlier"
            )
        self.optimiser.step()
        return totals

    def _pieces(self, indices: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        """Pieces of `rows` indices each; the last one is filled up, and the second value says how many count."""
        for start in range(0, len(indices), self.rows):
            piece = indices[start : start + self.rows]
            yield np.resize(piece, self.rows), len(piece)

    def _losses(self, experience: Experience, indices: np.ndarray, count: int) -> tuple[Parts, float]:
        rl = self.policy.rl
        evaluated = self.evaluate(experience, indices)
        device = evaluated.log_prob.device
        rows = torch.from_numpy(indices[:count])
        old, values, advantages, returns = (
            tensor[rows].to(device)
            for tensor in (experience.log_probs, experience.values, experience.advantages, experience.returns)
        )
        log_prob, value, entropy = (tensor[:count] for tensor in evaluated)
        actor = policy_loss(log_prob, old, advantages, clip_ratio=rl.clip_ratio, dual_clip=rl.dual_clip)
        critic = value_loss(value, values, returns, value_clip=rl.value_clip, delta=rl.huber_delta)
        error = float(((log_prob.detach() - old).exp() - 1).abs().max())
        return Parts(actor, critic, entropy.mean()), error

    def evaluate(self, experience: Experience, indices: np.ndarray) -> Evaluated:
        """Log-probabilities and values of rows under the present weights, along the path of the rollout."""
        device = self.policy.model.action_in_proj.weight.device
        images: dict[str, Any] = {view: image[indices] for view, image in experience.images.items()}
        observation = self.processor.observation(images, experience.states[indices], [self.prompt] * len(indices))
        observation = observation.to(device)
        rows = torch.from_numpy(indices)
        transitions = Transitions(*(tensor[rows].to(device) for tensor in experience.transitions))
        return self.policy.log_probabilities(observation.state, self.policy.prefix(observation), transitions)
