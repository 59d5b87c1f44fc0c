"""One optimiser step: the loss, its gradient, clipping."""

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
    """The loss, a scalar, of the squared errors (..., A) that `Pi0.forward` gives."""
    if config.sft.loss_on_real_dims:
        errors = errors[..., : config.policy.env_action_dim]
    return errors.mean()


def parts_of(config: JobConfig, team: Team) -> int:
    """How many micro-batches a step of one process has."""
    rows = config.sft.batch_size // team.size
    return -(-rows // (config.sft.micro_batch or rows))


class Outcome:
    """The loss of a step and its gradient's norm before clipping, which a GPU may still be computing.

    Args:
        loss, norm: scalars on the device.
        step, lr: what an error says.
    """

    def __init__(self, loss: Tensor, norm: Tensor, step: int, lr: float) -> None:
        self.step, self._lr, self._done = step, lr, None
        both = torch.stack([loss, norm])
        self._values = torch.empty_like(both, device="cpu", pin_memory=both.is_cuda)
        self._values.copy_(both, non_blocking=both.is_cuda)
        if both.is_cuda:
            # Waiting for this event waits for this step alone, not for the next one, which may be under way.
            self._done = torch.cuda.Event()
            self._done.record()

    @property
    def ready(self) -> bool:
        """Whether `read` waits for nothing."""
        return self._done is None or self._done.query()

    def read(self) -> tuple[float, float]:
        """Loss and norm. Waits until the device has them.

        Raises:
            TrainingDiverged: one of them is not finite; the step then changed no weight.
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
) -> Outcome:
    """Train one step, 1-based. Where the optimiser clips by itself, on a GPU, nothing waits for the device.

    Raises:
        TrainingDiverged: the loss or the gradient is not finite; the weights are then unchanged. On a GPU the outcome
            says so when it is read.
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
    loss = team.mean(torch.stack(parts).sum())
    # Scale the gradient down to the largest norm that is admitted, then step.
    most = config.sft.clip_grad_norm
    if isinstance(optimiser, MasterAdamW) and optimiser.has_kernels:
        # Both are under way before anybody knows the norm; a gradient that is not finite changes nothing.
        return Outcome(loss, optimiser.clipped_step(most, sound=loss), step, config.sft.lr)
    parameters = list(spread.model.parameters())
    norm = gradient_norm(parameters)
    outcome = Outcome(loss, norm, step, config.sft.lr)
    outcome.read()
    clip_gradients(parameters, norm, most)
    optimiser.step()
    return outcome
