"""The losses against a reference that is written element by element in float64, and its gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.engines.local.rl.ppo import explained_variance, policy_loss, value_loss

CLIP, DUAL = 0.2, 3.0


def reference_gradient(log_prob: float, old: float, advantage: float) -> tuple[float, float]:
    """Loss of one chunk and its derivative by the log-probability, by cases."""
    ratio = math.exp(log_prob - old)
    if advantage >= 0:
        if ratio > 1 + CLIP:
            return -advantage * (1 + CLIP), 0.0
        return -advantage * ratio, -advantage * ratio
    if ratio < 1 - CLIP:
        return -advantage * (1 - CLIP), 0.0
    if ratio > DUAL:
        return -advantage * DUAL, 0.0
    return -advantage * ratio, -advantage * ratio


def batch(seed: int, size: int = 64):
    random = np.random.default_rng(seed)
    old = random.normal(50, 5, size)
    return old + random.normal(0, 0.8, size), old, random.normal(0, 1, size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(5))
def test_policy_loss_and_gradient_agree_with_the_reference(seed, dtype):
    log_prob, old, advantages = batch(seed)
    # The reference gets the numbers that the loss gets; in float32 they are rounded.
    rounded = [torch.tensor(each, dtype=dtype) for each in (log_prob, old, advantages)]
    parameter = rounded[0].requires_grad_()
    result = policy_loss(parameter, *rounded[1:], clip_ratio=CLIP, dual_clip=DUAL)
    result.loss.backward()
    pairs = [reference_gradient(*row) for row in zip(*(each.tolist() for each in rounded), strict=True)]
    losses, gradients = map(np.array, zip(*pairs, strict=True))
    assert result.loss.item() == pytest.approx(losses.mean(), abs=1e-5)
    np.testing.assert_allclose(parameter.grad.numpy(), gradients / len(losses), atol=1e-5)
    ratios = np.exp(log_prob - old)
    assert float(result.clip_fraction) == pytest.approx((abs(ratios - 1) > CLIP).mean())
    assert float(result.approx_kl) == pytest.approx((ratios - 1 - np.log(ratios)).mean(), rel=1e-3)


def test_every_case_of_the_reference_occurs():
    log_prob, old, advantages = batch(0)
    ratios = np.exp(log_prob - old)
    for case in (advantages > 0, advantages < 0):
        assert (case & (ratios > 1 + CLIP)).any()
        assert (case & (ratios < 1 - CLIP)).any()
    assert ((advantages < 0) & (ratios > DUAL)).any()


def test_at_the_first_step_it_is_the_policy_gradient():
    """Ratio 1: the gradient is that of -A log p, nothing is clipped and the divergence is 0."""
    _, old, advantages = batch(1)
    parameter = torch.tensor(old, requires_grad=True)
    result = policy_loss(parameter, torch.tensor(old), torch.tensor(advantages), clip_ratio=CLIP, dual_clip=DUAL)
    result.loss.backward()
    np.testing.assert_allclose(parameter.grad.numpy(), -advantages / len(old))
    assert float(result.approx_kl) == float(result.clip_fraction) == 0.0


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.tuples(*[st.floats(-20, 20)] * 3), min_size=1, max_size=20),
    value_clip=st.floats(0.01, 5),
    delta=st.floats(0.1, 20),
)
def test_value_loss_is_the_worse_of_two_huber_losses(values, value_clip, delta):
    def huber(error: float) -> float:
        return 0.5 * error**2 if abs(error) <= delta else delta * (abs(error) - 0.5 * delta)

    new, old, returns = (torch.tensor(each, dtype=torch.float64) for each in zip(*values, strict=True))
    expected = [max(huber(v - r), huber(o + min(max(v - o, -value_clip), value_clip) - r)) for v, o, r in values]
    actual = value_loss(new, old, returns, value_clip=value_clip, delta=delta)
    assert float(actual) == pytest.approx(np.mean(expected), rel=1e-9, abs=1e-12)


def test_gradient_of_the_value_loss_agrees_with_float64():
    random = np.random.default_rng(0)
    new, old, returns = (random.normal(0, 1, 64).astype(np.float32) for _ in range(3))

    def gradient(dtype: torch.dtype) -> np.ndarray:
        parameter = torch.tensor(new, dtype=dtype, requires_grad=True)
        others = torch.tensor(old, dtype=dtype), torch.tensor(returns, dtype=dtype)
        value_loss(parameter, *others, value_clip=0.2, delta=10.0).backward()
        return parameter.grad.double().numpy()

    np.testing.assert_allclose(gradient(torch.float32), gradient(torch.float64), atol=1e-5)


def test_explained_variance():
    returns = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full((4,), 7.0), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(returns, torch.ones(4)) == 0.0
