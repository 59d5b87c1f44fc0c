"""One optimiser step: the loss, its gradient, clipping."""

from __future__ import annotations

import math

import torch

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.local.sft.batches import TrainingBatch
from rlinf_isaac.engines.local.sft.schedule import learning_rate
from rlinf_isaac.engines.local.training.optimiser import MasterAdamW, clip_gradients, gradient_norm
from rlinf_isaac.engines.local.training.spread import Spread
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.ground.errors import TrainingDiverged


def flow_loss(errors: torch.Tensor, config: JobConfig) -> torch.Tensor:
    """The loss, a scalar, of the squared errors (..., A) that `Pi0.forward` gives."""
    if config.sft.loss_on_real_dims:
        errors = errors[..., : config.policy.env_action_dim]
    return errors.mean()


def parts_of(config: JobConfig, team: Team) -> int:
    """How many micro-batches a step of one process has."""
    rows = config.sft.batch_size // team.size
    return -(-rows // (config.sft.micro_batch or rows))


def update(
    spread: Spread, optimiser: torch.optim.AdamW, batch: TrainingBatch, config: JobConfig, step: int, team: Team
) -> tuple[float, float]:
    """Train one step, 1-based; returns the loss and the gradient's norm before clipping.

    Where the optimiser clips by itself, on a GPU, the device is waited for when all work of the step is under way.

    Raises:
        TrainingDiverged: one of them is not finite; the weights are then unchanged.
    """
    device = team.device(config.compute.device)
    # The learning rate is a function of the step alone, so that a resumed training has the same one.
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config.sft, step)
    optimiser.zero_grad(set_to_none=True)
    size = len(batch.actions)
    step_size = config.sft.micro_batch or size
    parts = []
    # The batch goes through in micro-batches; each adds its share to the gradient of the whole batch.
    for first in range(0, size, step_size):
        part = batch.rows(first, first + step_size)
        with spread.part(last=first + step_size >= size):
            loss = flow_loss(spread(*part.on(device)), config) * (len(part.actions) / size)
            loss.backward()
        parts.append(loss.detach())
    # The processes' gradients are averaged (those of shards and of copies were, in the backward pass).
    spread.average_whole_gradients()
    parameters = list(spread.model.parameters())
    loss = team.mean(torch.stack(parts).sum())
    # Scale the gradient down to the largest norm that is admitted, then step. On a GPU both are under way before the
    # loss is read; a gradient that is not finite changes nothing there.
    most = config.sft.clip_grad_norm
    ahead = optimiser if isinstance(optimiser, MasterAdamW) and optimiser.has_kernels else None
    norm = ahead.clipped_step(most, sound=loss) if ahead else gradient_norm(parameters)
    value, norm_value = torch.stack([loss, norm]).tolist()
    if not (math.isfinite(value) and math.isfinite(norm_value)):
        raise TrainingDiverged(
            f"loss {value}, gradient norm {norm_value} at step {step}; the checkpoints before it are kept. "
            f"Lower sft.lr (now {config.sft.lr}) or check the data with norm_stats"
        )
    if not ahead:
        clip_gradients(parameters, norm, most)
        optimiser.step()
    return value, norm_value
