"""The two optimisers of an update: of the policy and of the value head, each with its own rate and gradient norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.local.training.optimiser import MasterAdamW, trained_copy
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.engines.local.training.training_state import TrainingState, optimiser_tensors, trained_tensors
from rlinf_isaac.pi0.flow_policy import FlowActorCritic

CRITIC = "value_head"


def learning_rate(rl: RlConfig, iteration: int) -> float:
    """Learning rate of the policy at `iteration` (1-based): linear warm-up over the first `rl.lr_warmup` iterations in
    which the policy learns.

    The warm-up is needed because Adam's first steps have full size in every coordinate, even if the gradient is small
    and noisy.
    """
    learning = iteration - rl.warmup_iterations
    return rl.lr * min(1.0, max(0, learning) / max(1, rl.lr_warmup))


class Optimisers:
    """AdamW of the policy and of the value head.

    Args:
        policy: the policy and value head.
        exact: name -> float32 values from which a trained bfloat16 parameter was rounded (`MasterAdamW`).

    Attributes:
        actor, critic: the optimisers.
    """

    def __init__(self, policy: FlowActorCritic, exact: Mapping[str, Tensor] | None = None) -> None:
        rl, whole = policy.rl, policy.checkpoint_module()
        self.policy = policy
        actor = dict(policy.actor_parameters())
        critic = {name: each for name, each in whole.named_parameters() if name.startswith(f"{CRITIC}.")}
        self._clip = rl.clip_grad_norm
        self.actor = _adamw(actor, exact or {}, rl, rl.lr)
        self.critic = _adamw(critic, {}, rl, rl.value_lr)
        self._actor_parameters, self._critic_parameters = list(actor.values()), list(critic.values())

    @property
    def queued(self) -> bool:
        """Whether `step` is queued on a GPU without waiting for it; a step that is not finite then changes nothing."""
        return all(isinstance(each, MasterAdamW) and each.has_kernels for each in (self.actor, self.critic))

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate of the policy."""
        for group in self.actor.param_groups:
            group["lr"] = lr

    def zero_grad(self, *, policy: bool) -> None:
        """Forget the gradients of the value head, and with `policy` those of the policy."""
        for parameter in [*self._critic_parameters, *(self._actor_parameters if policy else ())]:
            parameter.grad = None

    def add_up(self, team: Team, *, policy: bool) -> None:
        """Sum the gradients over the processes: of the value head, and with `policy` of the policy. Collective call."""
        chosen = [*self._critic_parameters, *(self._actor_parameters if policy else ())]
        team.add_up([each.grad for each in chosen if each.grad is not None])

    @torch.no_grad()
    def clip(self, minibatches: int, *, policy: bool) -> tuple[Tensor, Tensor]:
        """Shorten the gradients to ``rl.clip_grad_norm``: of the value head, and with `policy` of the policy.

        The policy's are first divided by `minibatches`, the number of those that they are summed over.

        Returns:
            The norms before, of the value head and of the policy; the latter is 0 without `policy`.
        """
        critic = torch.nn.utils.clip_grad_norm_(self._critic_parameters, self._clip)
        if not policy:
            return critic, torch.zeros_like(critic)
        self._divide(minibatches)
        return critic, torch.nn.utils.clip_grad_norm_(self._actor_parameters, self._clip)

    def step(self, *, policy: bool) -> None:
        """Take a step of the value head, and with `policy` of the policy, with the gradients as they are."""
        self.critic.step()
        if policy:
            self.actor.step()

    def queue(self, minibatches: int, sound: Tensor, *, policy: bool) -> tuple[Tensor, Tensor]:
        """`clip` and `step` at once, queued on the GPU; nothing changes where a norm or `sound` is not finite."""
        critic = self.critic.clipped_step(self._clip, sound)  # type: ignore[attr-defined]
        if not policy:
            return critic, torch.zeros_like(critic)
        self._divide(minibatches)
        return critic, self.actor.clipped_step(self._clip, sound)  # type: ignore[attr-defined]

    def tensors(self) -> dict[str, Tensor]:
        """Moments, step counts and float32 copies by name, as `TrainingState.save` takes them."""
        found: dict[str, Tensor] = {}
        for module, optimiser in self._parts():
            found |= optimiser_tensors(module, optimiser)
        return found

    def trained(self) -> dict[str, Tensor]:
        """The trained parameters that a bundle with merged adapters lacks, as `TrainingState.save` takes them."""
        found: dict[str, Tensor] = {}
        for module, optimiser in self._parts():
            found |= trained_tensors(module, optimiser, {})
        return found

    def restore(self, state: TrainingState, step: int) -> None:
        """Load the moments and float32 copies of `step`, and the weights that its bundle lacks; the model must have
        the bundle's weights."""
        for module, optimiser in self._parts():
            state.restore_optimiser(step, module, optimiser)

    @torch.no_grad()
    def set_trained(self, values: Mapping[str, Tensor]) -> None:
        """Set trained parameters of the policy, by name, and their float32 copies."""
        parameters = dict(self.policy.actor_parameters())
        for name, value in values.items():
            trained_copy(self.actor, parameters[name]).copy_(value)
            parameters[name].copy_(value)

    def _parts(self) -> Sequence[tuple[nn.Module, torch.optim.AdamW]]:
        """Policy and value head as modules with the names of a checkpoint, and their optimisers."""
        actor, critic = nn.Module(), nn.Module()
        for name, child in self.policy.checkpoint_module().named_children():
            (critic if name == CRITIC else actor).add_module(name, child)
        return (actor, self.actor), (critic, self.critic)

    def _divide(self, minibatches: int) -> None:
        gradients = [each.grad for each in self._actor_parameters if each.grad is not None]
        if minibatches > 1 and gradients:
            torch._foreach_div_(gradients, minibatches)


def _adamw(
    parameters: Mapping[str, nn.Parameter], exact: Mapping[str, Tensor], rl: RlConfig, lr: float
) -> torch.optim.AdamW:
    """AdamW, by float32 copies and in kernels of its own where there are such copies, or a GPU."""
    options: dict[str, Any] = {"lr": lr, "betas": (rl.beta1, rl.beta2), "weight_decay": rl.weight_decay}
    rounded = {name for name, each in parameters.items() if each.dtype != torch.float32}
    if rounded <= exact.keys() and (rounded or next(iter(parameters.values())).is_cuda):
        return MasterAdamW(parameters.items(), exact, **options)
    return torch.optim.AdamW(list(parameters.values()), **options)
