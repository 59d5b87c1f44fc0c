"""Matrices with adapters. Those without are tested with the network."""

from __future__ import annotations

import pytest
import torch

from rlinf_isaac.config import load_config
from rlinf_isaac.pi0.fast.weights import gemma_weights, merge_adapters
from rlinf_isaac.pi0.gemma import Gemma
from rlinf_isaac.pi0.lora import LoraLinear, add_adapters
from rlinf_isaac.pi0.precision import to_precision


@pytest.fixture
def expert(model, config) -> Gemma:
    """A bfloat16 expert whose adapters have no effect yet."""
    job = load_config("tiny", ["sft.trainable=lora"])
    job.model = config
    return add_adapters(to_precision(model, "bfloat16"), job).expert


def test_without_effect_the_weights_stay(expert) -> None:
    attention, weights = expert.layers[0].self_attn, gemma_weights(expert)
    wanted = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    assert torch.equal(weights[0].qkv, wanted)
    assert torch.equal(weights[0].down, expert.layers[0].mlp.down_proj.weight)
    assert weights[0].qkv.data_ptr() != attention.q_proj.weight.data_ptr()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_change_far_below_rounding_is_kept_on_average(expert, sign: int) -> None:
    """A thousandth of a weight is less than half a bfloat16 step."""
    layer = expert.layers[1].mlp.down_proj
    assert isinstance(layer, LoraLinear)
    with torch.no_grad():
        layer.weight.fill_(sign * 1.5)
        layer.lora_A.zero_()[0] = 1.0
        layer.lora_B.zero_()[:, 0] = 1.5e-3 / layer.scale
    weights = gemma_weights(expert)
    change = (weights[1].down.float() - layer.weight.float()).mean().item()
    assert change == pytest.approx(1.5e-3, rel=0.3)
    before = weights[1].down.clone()
    merge_adapters(expert, weights)
    assert torch.equal(weights[1].down, before)
    with torch.no_grad():
        layer.lora_B.mul_(2)
    merge_adapters(expert, weights)
    twice = (weights[1].down.float() - layer.weight.float()).mean().item()
    assert twice == pytest.approx(3e-3, rel=0.3)
