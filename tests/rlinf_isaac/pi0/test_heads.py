from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.pi0.heads import NoiseHead, ValueHead, initialise_heads


@settings(deadline=None, max_examples=30)
@given(scale=st.floats(1e-3, 1e6), seed=st.integers(0, 99))
def test_deviations_stay_between_their_bounds_whatever_the_tokens(scale, seed):
    head = NoiseHead(8, 5, 0.08, 0.16)
    tokens = scale * torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(seed))
    std = head(tokens)
    assert std.shape == (2, 3, 5)
    assert float(std.min()) >= 0.08 * (1 - 1e-5)
    assert float(std.max()) <= 0.16 * (1 + 1e-5)


def test_new_heads_begin_in_the_middle():
    heads = torch.nn.ModuleList([ValueHead(8, (16,)), NoiseHead(8, 5, 0.08, 0.16)])
    initialise_heads(heads, seed=0)
    token = torch.randn(4, 8)
    assert float(heads[0](token).abs().max()) < 0.05
    torch.testing.assert_close(heads[1](token[:, None]), torch.full((4, 1, 5), (0.08 * 0.16) ** 0.5), rtol=0.01, atol=0)


def test_a_value_learns_and_its_token_does_not():
    head = ValueHead(4, (16,))
    token = torch.randn(32, 4, requires_grad=True)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    target = token.detach().sum(1)
    losses = []
    for _ in range(200):
        loss = (head(token) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < 0.05 * losses[0]
    assert token.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_float32(dtype):
    assert ValueHead(4, (8,))(torch.zeros(2, 4, dtype=dtype)).dtype == torch.float32
