"""What a training begins with, and goes back to."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from rlinf_isaac.engines.local.rl.start import go_back, load_policy_and_optimisers
from rlinf_isaac.engines.local.training.optimiser import trained_copy
from rlinf_isaac.pi0.lora import scales

BF16 = "compute.dtype=bfloat16"
PROJECTION = "paligemma_with_expert.gemma_expert.model.layers.0.self_attn.q_proj.weight"


def test_bfloat16_is_mixed_as_openpi_does_and_what_trains_has_exact_float32_copies(make_job):
    job = make_job(BF16)
    policy, optimisers = load_policy_and_optimisers(job)
    stored = load_file(job.start.path / "model.safetensors")
    parameter = policy.model.get_parameter(PROJECTION)
    assert parameter.dtype == torch.bfloat16
    assert torch.equal(parameter, stored[PROJECTION].bfloat16())
    assert torch.equal(trained_copy(optimisers.actor, parameter), stored[PROJECTION])
    assert not torch.equal(parameter.float(), stored[PROJECTION])
    assert {each.dtype for each in policy.heads.parameters()} == {torch.float32}
    assert policy.model.action_out_proj.weight.dtype == torch.float32
    assert all(group["lr"] == job.config.rl.value_lr for group in optimisers.critic.param_groups)


def test_without_copies_bfloat16_trains_by_itself(make_job):
    policy, optimisers = load_policy_and_optimisers(make_job(BF16, "compute.master_weights=false"))
    parameter = policy.model.get_parameter(PROJECTION)
    assert trained_copy(optimisers.actor, parameter) is parameter


@pytest.mark.parametrize("overrides", [[], [BF16], [BF16, "rl.trainable=lora"], ["rl.trainable=all"]])
def test_it_goes_back_in_place_to_what_it_began_with(make_job, overrides):
    job = make_job(*overrides, "rl.exploration=flow_noise")
    policy, optimisers = load_policy_and_optimisers(job)
    whole = policy.checkpoint_module()
    begun = {name: each.detach().clone() for name, each in whole.named_parameters()}
    copies = {name: trained_copy(optimisers.actor, each).detach().clone() for name, each in policy.actor_parameters()}
    places = [each.data_ptr() for each in whole.parameters()]
    with torch.no_grad():
        for parameter in whole.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    again = go_back(job, policy, None)
    assert [each.data_ptr() for each in whole.parameters()] == places
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, begun[name]), name
    for name, parameter in policy.actor_parameters():
        assert torch.equal(trained_copy(again.actor, parameter), copies[name]), name
    assert bool(scales(policy.model)) == ("rl.trainable=lora" in overrides)
