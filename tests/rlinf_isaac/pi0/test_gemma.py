from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.config.schema import GemmaConfig
from rlinf_isaac.pi0.gemma import MASKED, AdaptiveRMSNorm, Gemma, KeysValues, RMSNorm, Rope, add_residual, masked_bias


def test_rms_norm_formula() -> None:
    norm = RMSNorm(5)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 3, 5)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + norm.weight)
    normed, gate = norm(x)
    torch.testing.assert_close(normed, expected)
    assert gate is None


def test_adaptive_norm_formula() -> None:
    norm = AdaptiveRMSNorm(5, condition_width=4)
    x, condition = torch.randn(2, 3, 5), torch.randn(2, 4)
    scale, shift, gate = norm.dense(condition).split(5, dim=-1)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale[:, None]) + shift[:, None]
    normed, actual_gate = norm(x, condition)
    torch.testing.assert_close(normed, expected)
    torch.testing.assert_close(actual_gate, gate[:, None])
    torch.testing.assert_close(add_residual(x, normed, actual_gate), x + normed * gate[:, None])


@settings(deadline=None, max_examples=30)
@given(first=st.integers(0, 800), second=st.integers(0, 800), shift=st.integers(0, 200))
def test_rotary_products_depend_on_the_distance_alone(first: int, second: int, shift: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=generator, dtype=torch.float64).unbind(0)

    def product(query_position: int, key_position: int) -> float:
        ropes = [Rope.of(torch.tensor([[p]]), 16, torch.float64) for p in (query_position, key_position)]
        return (ropes[0].rotate(query) * ropes[1].rotate(key)).sum().item()

    # Angles are computed in float32, so at position 1000 they are good to about 1e-4 radians.
    assert product(first, second) == pytest.approx(product(first + shift, second + shift), abs=5e-3)


def test_rotation_at_position_zero_is_none() -> None:
    x = torch.randn(1, 1, 2, 8)
    assert torch.equal(Rope.of(torch.zeros(1, 1, dtype=torch.long), 8, torch.float32).rotate(x), x)


def test_fully_masked_row_is_finite() -> None:
    bias = masked_bias(torch.tensor([[True, False], [False, False]]), torch.float32)
    assert bias.tolist() == [[0.0, pytest.approx(MASKED)], [pytest.approx(MASKED)] * 2]
    assert bias.softmax(-1).isfinite().all()
    assert masked_bias(torch.tensor([False]), torch.bfloat16).isfinite().all()


def test_keys_of_the_last_layer_are_those_of_a_full_pass() -> None:
    gemma = Gemma(GemmaConfig(width=16, depth=2, mlp_dim=24, num_heads=4, num_kv_heads=2, head_dim=4))
    x = torch.randn(2, 5, 16)
    rope = Rope.of(torch.arange(5).expand(2, -1), 4, torch.float32)
    bias = torch.zeros(2, 1, 1, 5)
    found = gemma.keys_and_values(x, rope, bias)
    for layer, expected in zip(gemma.layers, found, strict=True):
        x, own = layer(x, rope, bias)
        assert isinstance(own, KeysValues)
        assert torch.equal(own.keys, expected.keys)
        assert torch.equal(own.values, expected.values)
