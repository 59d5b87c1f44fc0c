"""One optimiser step: loss, backward pass, gradient clipping, and AdamW."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.local.sft.batches import TrainingBatch
from rlinf_isaac.engines.local.sft.schedule import learning_rate
from rlinf_isaac.engines.local.training.optimiser import MasterAdamW, clip_gradients, gradient_norm
from rlinf_isaac.engines.local.training.spread import Spread
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.ground.errors import TrainingDiverged


def flow_loss(errors: Tensor, config: JobConfig) -> Tensor:
    """The loss, a scalar: mean of the squared errors (..., A) that `Pi0.forward` returns."""
    if config.sft.loss_on_real_dims:
        errors = errors[..., : config.policy.env_action_dim]
    return errors.mean()


def parts_of(config: JobConfig, team: Team) -> int:
    """Number of micro-batches in a step of one process."""
    rows = config.sft.batch_size // team.size
    return -(-rows // (config.sft.micro_batch or rows))


class StepResult:
    """Loss and gradient norm (before clipping) of a step, which a GPU may still be computing.

    Args:
        loss, norm: scalars on the device.
        step, lr: step and configured learning rate, for the error message.
    """

    def __init__(self, loss: Tensor, norm: Tensor, step: int, lr: float) -> None:
        self.step, self._lr, self._done = step, lr, None
        both = torch.stack([loss, norm])
        self._values = torch.empty_like(both, device="cpu", pin_memory=both.is_cuda)
        self._values.copy_(both, non_blocking=both.is_cuda)
        if both.is_cuda:
            # This event waits only for this step, not for later steps that are already queued.
            self._done = torch.cuda.Event()
            self._done.record()

    @property
    def ready(self) -> bool:
        """Whether `read` returns without waiting."""
        return self._done is None or self._done.query()

    def read(self) -> tuple[float, float]:
        """Loss and norm; waits until the device has computed them.

        Raises:
            TrainingDiverged: one of them is not finite. The step then has not changed the weights.
        """
        if self._done is not None:
            self._done.synchronize()
        loss, norm = self._values.tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingDiverged(
                f"loss {loss}, gradient norm {norm} at step {self.step}; the checkpoints before it are kept. "
                f"Lower sft.lr (now {self._lr}) or check the data with norm_stats"
            )
        return loss, norm


def update(
    spread: Spread, optimiser: torch.optim.AdamW, batch: TrainingBatch, config: JobConfig, step: int, team: Team
) -> StepResult:
    """Train one step (1-based). With the optimiser's GPU kernels, this call does not wait for the device.

    Raises:
        TrainingDiverged: the loss or the gradient is not finite; the weights are then unchanged. With GPU kernels,
            `StepResult.read` raises it instead.
    """
    device = team.device(config.compute.device)
    # The learning rate is a function of the step alone, so that a resumed training has the same one.
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config.sft, step)
    optimiser.zero_grad(set_to_none=True)
    size = len(batch.actions)
    step_size = config.sft.micro_batch or size
    parts = []
    # Forward and backward pass in micro-batches. Each loss is weighted by its share of the rows, so the accumulated
    # gradient is that of the whole batch.
    for first in range(0, size, step_size):
        part = batch.rows(first, first + step_size)
        with spread.part(last=first + step_size >= size):
            loss = flow_loss(spread(*part.on(device)), config) * (len(part.actions) / size)
            loss.backward()
        parts.append(loss.detach())
    # Average over the processes the gradients that the backward pass has not averaged already (those of parameters that
    # are neither sharded nor in replicated modules), and the loss.
    spread.average_whole_gradients()
    loss = team.mean(torch.stack(parts).sum())
    # Clip the gradient to the norm `sft.clip_grad_norm`, and take the step of AdamW.
    most = config.sft.clip_grad_norm
    if isinstance(optimiser, MasterAdamW) and optimiser.has_kernels:
        # Both are queued on the GPU without waiting for the norm; if it is not finite, the kernel changes nothing.
        return StepResult(loss, optimiser.clipped_step(most, sound=loss), step, config.sft.lr)
    parameters = list(spread.model.parameters())
    norm = gradient_norm(parameters)
    result = StepResult(loss, norm, step, config.sft.lr)
    result.read()
    clip_gradients(parameters, norm, most)
    optimiser.step()
    return result
