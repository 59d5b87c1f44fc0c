"""The fast path against the plain one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlinf_isaac.pi0.fast import network
from rlinf_isaac.pi0.fast.network import FastNetwork
from rlinf_isaac.pi0.fast.sampler import GraphSampler, fits, gather
from rlinf_isaac.pi0.fast.weights import gemma_weights
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.precision import to_precision

STEPS = 2
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


both = pytest.mark.parametrize("config", [False, True], ids=["pi0", "pi05"], indirect=True)


@both
@pytest.mark.parametrize(("rows", "padded"), [(0, True), (64, False)], ids=["wide-padded", "skinny-unpadded"])
def test_samples_are_those_of_the_plain_path(
    config, model, make_observation, make_flow, monkeypatch, device, rows: int, padded: bool
) -> None:
    monkeypatch.setattr(network, "SKINNY_ROWS", rows)
    monkeypatch.setattr("rlinf_isaac.pi0.fast.sampler.PROMPT_STEP", 16 if padded else 1)
    observation, noise = make_observation(config), make_flow(config)[1].to(device)
    if not padded:
        observation = replace(observation, prompt_mask=torch.ones_like(observation.prompt_mask), padded=None)
        assert not observation.padded
    model, observation = model.to(device), observation.to(device)
    wanted = model.sample(observation, noise, STEPS)
    found = FastNetwork(model, STEPS)(gather(observation, noise)[0], padded)
    # In float32 the kernels are exact up to the order of sums; the projections around the expert may use TF32.
    torch.testing.assert_close(found, wanted, atol=2e-6 if device == "cpu" else 5e-3, rtol=0)


def test_rows_with_a_camera_masked(config, model, make_observation, make_flow, device) -> None:
    """A camera that only some rows have: its tokens move behind the valid ones."""
    observation, noise = make_observation(config), make_flow(config)[1].to(device)
    masks = observation.image_masks | {"base_0_rgb": torch.tensor([True, False, True])}
    observation = replace(observation, image_masks=masks).to(device)
    model = model.to(device)
    found = FastNetwork(model, STEPS)(gather(observation, noise)[0], True)
    wanted = model.sample(observation, noise, STEPS)
    torch.testing.assert_close(found, wanted, atol=2e-6 if device == "cpu" else 5e-3, rtol=0)


def test_the_state_dict_stays(config, model) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    FastNetwork(model, STEPS).refresh()
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_joined_weights_follow_the_parameters(config, model) -> None:
    (layer, *_), attention = gemma_weights(model.expert), model.expert.layers[0].self_attn
    with torch.no_grad():
        attention.k_proj.weight.fill_(2.0)
    heads = config.expert.num_heads * config.expert.head_dim
    assert (layer.qkv[heads : heads + len(attention.k_proj.weight)] == 2.0).all()
    assert gemma_weights(model.expert)[0].qkv.data_ptr() == layer.qkv.data_ptr()  # not copied a second time


def test_what_fits(config, make_config) -> None:
    assert not fits(Pi0(config))  # float32 takes the plain path, in a graph
    assert fits(to_precision(Pi0(config), "bfloat16"))
    assert not fits(to_precision(Pi0(make_config(False)), "bfloat16"))  # a head of 8 dims is no tile


def test_prompts_are_padded_to_share_a_graph(config, make_observation, make_flow) -> None:
    observation, noise = make_observation(config), make_flow(config)[1]
    inputs, padded = gather(observation, noise)
    assert padded
    assert inputs.prompt_tokens.shape == inputs.prompt_mask.shape == (3, 16)
    assert not inputs.prompt_mask[:, 9:].any()
    again = inputs.observation(padded=True)
    assert again.padded
    assert len(again.present_cameras) == 2


@needs_gpu
@both
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_graphs(config, model, make_observation, make_flow, kind: str) -> None:
    to_precision(model.cuda(), kind)
    sampler = GraphSampler(model, STEPS)
    for seed in (0, 1, 2):
        observation, noise = make_observation(config, seed), make_flow(config, seed)[1]
        found = sampler(observation, noise)
        wanted = model.sample(observation.to("cuda"), noise.cuda(), STEPS)
        assert (found - wanted).norm() / wanted.norm() < (1e-5 if kind == "float32" else 2e-2)
        assert torch.equal(sampler(observation.to("cuda"), noise.cuda()), found)
    assert len(sampler.graphs) == 1
    assert sampler.warmup_seconds > 0
