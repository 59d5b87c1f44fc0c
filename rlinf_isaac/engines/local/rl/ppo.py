"""PPO's losses over action chunks. Pure functions of tensors, in the dtype they are given."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PolicyLoss(NamedTuple):
    """The loss to minimise, and what is worth watching; all scalars.

    Attributes:
        loss: mean clipped surrogate, negated.
        approx_kl: mean of (ratio - 1) - log ratio, an estimate of KL(old || new) that is never negative.
        clip_fraction: share of the chunks whose ratio is outside the clip range.
    """

    loss: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


def policy_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, *, clip_ratio: float, dual_clip: float
) -> PolicyLoss:
    """The clipped surrogate with a second clip for negative advantages.

    With rho = exp(log_prob - old_log_prob): L = max(-A rho, -A clip(rho, 1 - e, 1 + e)), and where A < 0 no more than
    c |A|, so that one improbable chunk with a bad outcome cannot dominate. Sources: PPO arXiv 1707.06347, dual clip
    arXiv 1912.09729.

    Args:
        log_prob, old_log_prob, advantages: (B,); gradients flow to `log_prob` alone.
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
    """Huber loss of the values, the worse of plain and clipped to within `value_clip` of the old ones; a scalar.

    Args:
        values, old_values, returns: (B,).
        value_clip: how far a value may move in one iteration for free.
        delta: where the Huber loss becomes linear.
    """
    clipped = old_values + (values - old_values).clamp(-value_clip, value_clip)
    plain = F.huber_loss(values, returns, delta=delta, reduction="none")
    return torch.maximum(plain, F.huber_loss(clipped, returns, delta=delta, reduction="none")).mean()


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than a constant. 0 for constant returns."""
    variance = returns.double().var(correction=0)
    if variance == 0:
        return 0.0
    return float(1 - (returns.double() - values.double()).var(correction=0) / variance)
