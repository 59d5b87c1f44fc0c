from __future__ import annotations

import pytest
import torch

from rlinf_isaac.config import load_config
from rlinf_isaac.pi0.compiled import checkpoint_activations, compile_blocks
from rlinf_isaac.pi0.lora import INITIAL_STD, add_adapters, is_adapter, merged, scales
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.precision import to_precision
from rlinf_isaac.pi0.trainable import is_trained


def job(config, *overrides):
    job = load_config("tiny", ["sft.trainable=lora", "sft.lora.vlm_rank=3", "sft.lora.vlm_alpha=6", *overrides])
    job.model = config
    return job


def copy_of(model: Pi0) -> Pi0:
    other = Pi0(model.config)
    other.load_state_dict(model.state_dict())
    return other.eval()


def trained_for_a_while(model: Pi0) -> Pi0:
    """Adapters with an effect that is far above rounding."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter.normal_(std=0.2, generator=generator)
    return model


@pytest.fixture
def inputs(model, make_observation):
    generator = torch.Generator().manual_seed(5)
    shape = (3, model.config.action_horizon, model.config.action_dim)
    actions, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    return make_observation(model.config), actions, noise, torch.tensor([0.2, 0.5, 0.9])


def test_they_begin_without_any_effect_and_leave_names_alone(model, config, inputs):
    adapted = add_adapters(copy_of(model), job(config))
    assert torch.equal(adapted(*inputs), model(*inputs))
    ours, theirs = adapted.state_dict(), model.state_dict()
    assert {name for name in ours if not is_adapter(name)} == theirs.keys()
    layers = 7 * (config.vlm.depth + config.expert.depth)
    assert len(scales(adapted)) == layers
    assert sum(map(is_adapter, ours)) == 2 * layers
    drawn = torch.cat([each.flatten() for name, each in ours.items() if name.endswith("lora_A")])
    assert drawn.std().item() == pytest.approx(INITIAL_STD, rel=0.05)
    again = add_adapters(copy_of(model), job(config)).state_dict()
    assert all(torch.equal(each, again[name]) for name, each in ours.items())


def test_ranks_and_scales_are_those_of_the_two_parts(model, config):
    adapted = add_adapters(copy_of(model), job(config, "sft.lora.expert_rank=5", "sft.lora.expert_alpha=1"))
    for part, rank, scale in (("paligemma.model.language_model", 3, 2.0), ("gemma_expert.model", 5, 0.2)):
        name = f"paligemma_with_expert.{part}.layers.1.mlp.down_proj"
        assert adapted.get_submodule(name).lora_A.shape[0] == rank
        assert scales(adapted)[name] == scale


def test_merged_weights_compute_what_weights_and_adapters_do(model, config, inputs):
    adapted = trained_for_a_while(add_adapters(copy_of(model), job(config)))
    whole = copy_of(model)
    whole.load_state_dict(merged(adapted.state_dict(), scales(adapted)))
    expected = adapted(*inputs)
    torch.testing.assert_close(whole(*inputs), expected, rtol=1e-5, atol=1e-5)
    assert (expected - model(*inputs)).abs().max() > 1e-2, "the adapters do something"


def test_merged_bfloat16_is_the_float32_sum_rounded_once(model, config):
    adapted = to_precision(copy_of(model), "bfloat16")
    trained_for_a_while(add_adapters(adapted, job(config)))
    assert {each.dtype for name, each in adapted.named_parameters() if is_adapter(name)} == {torch.float32}
    whole = merged(adapted.state_dict(), scales(adapted))
    name = "paligemma_with_expert.gemma_expert.model.layers.0.self_attn.o_proj"
    layer = adapted.get_submodule(name)
    exact = layer.weight.double() + scales(adapted)[name] * layer.lora_B.double() @ layer.lora_A.double()
    assert whole[f"{name}.weight"].dtype == torch.bfloat16
    torch.testing.assert_close(whole[f"{name}.weight"].double(), exact, rtol=2**-8, atol=1e-7)
    frozen = "paligemma_with_expert.gemma_expert.model.layers.0.input_layernorm"
    assert all(torch.equal(whole[n], each) for n, each in adapted.state_dict().items() if n.startswith(frozen))


def test_gradients_reach_the_adapters_and_what_lies_below_them(model, config, inputs):
    adapted, settings = add_adapters(copy_of(model), job(config)), job(config).sft
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_(is_adapter(name) or is_trained(name, settings))
    trained_for_a_while(adapted)(*inputs).mean().backward()
    names = {name for name, _ in adapted.named_parameters()}
    found = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    # Of the VLM's last layer only keys and values are computed.
    last = f"language_model.layers.{config.vlm.depth - 1}."
    unused = {name for name in names if last in name and ".k_proj" not in name and ".v_proj" not in name}
    assert set(filter(is_adapter, found)) == set(filter(is_adapter, names - unused))
    assert not any("layers" in name and not is_adapter(name) and "vision" not in name for name in found)
    assert any("vision_tower" in name for name in found)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_compiled_layers_have_the_same_gradients(model, config, inputs, checkpointed):
    adapted = trained_for_a_while(add_adapters(copy_of(model), job(config)))
    adapted.requires_grad_(False)
    trained = {name: each.requires_grad_(True) for name, each in adapted.named_parameters() if is_adapter(name)}

    def gradients():
        adapted(*inputs).mean().backward()
        found = {name: each.grad for name, each in trained.items() if each.grad is not None}
        adapted.zero_grad(set_to_none=True)
        return found

    wanted = gradients()
    compile_blocks(adapted, backend="aot_eager")  # traced forward and backward, without a C++ compiler
    checkpoint_activations(adapted, checkpointed)
    found = gradients()
    assert found.keys() == wanted.keys()
    for name, each in found.items():
        torch.testing.assert_close(each, wanted[name], atol=1e-5, rtol=1e-3)
