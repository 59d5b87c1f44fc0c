"""The losses of PPO over action chunks: pure functions that keep the dtype of their tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PolicyLoss(NamedTuple):
    """The policy's loss and two metrics; all scalars.

    Attributes:
        loss: mean clipped surrogate, negated.
        approx_kl: mean of (ratio - 1) - log ratio, a non-negative estimate of KL(old || new).
        clip_fraction: fraction of the chunks whose ratio is outside the clip range.
    """

    loss: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


def policy_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, *, clip_ratio: float, dual_clip: float
) -> PolicyLoss:
    """The clipped surrogate loss, with a second clip for negative advantages (dual clip).

    With rho = exp(log_prob - old_log_prob), the loss is L = max(-A rho, -A clip(rho, 1 - e, 1 + e)). For A < 0 it is at
    most c |A|, so that a single improbable chunk with a bad outcome cannot dominate. Sources: PPO arXiv 1707.06347,
    dual clip arXiv 1912.09729.

    Args:
        log_prob, old_log_prob, advantages: (B,); only `log_prob` gets gradients.
        clip_ratio: e.
        dual_clip: c > 1.
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_ratio, 1 + clip_ratio)
    surrogate = torch.maximum(-advantages * ratio, -advantages * clipped)
    bounded = torch.minimum(surrogate, -dual_clip * advantages)
    losses = torch.where(advantages < 0, bounded, surrogate)
    with torch.no_grad():
        approx_kl = (ratio - 1 - log_ratio).mean()
        clip_fraction = ((ratio - 1).abs() > clip_ratio).to(losses.dtype).mean()
    return PolicyLoss(losses.mean(), approx_kl, clip_fraction)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, value_clip: float, delta: float) -> Tensor:
    """Clipped Huber loss of the values, a scalar: for each chunk the larger of the losses of the value and of the value
    clipped to within `value_clip` of the old one.

    Args:
        values, old_values, returns: (B,).
        value_clip: largest change of a value in one iteration that is not clipped.
        delta: error at which the Huber loss becomes linear.
    """
    clipped = old_values + (values - old_values).clamp(-value_clip, value_clip)
    plain = F.huber_loss(values, returns, delta=delta, reduction="none")
    return torch.maximum(plain, F.huber_loss(clipped, returns, delta=delta, reduction="none")).mean()


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns). 1 is perfect, 0 no better than a constant; 0 for constant returns."""
    variance = returns.double().var(correction=0)
    if variance == 0:
        return 0.0
    return float(1 - (returns.double() - values.double()).var(correction=0) / variance)
