from __future__ import annotations

import pytest
import torch

from rlinf_isaac.pi0.compiled import checkpoint_activations, compile_blocks, recompute_products


@pytest.mark.parametrize(("compiled", "checkpointed"), [(True, False), (False, True), (True, True)])
def test_loss_and_gradients_are_the_same(model, config, make_observation, make_flow, compiled, checkpointed) -> None:
    observation, (actions, noise, time) = make_observation(config), make_flow(config)
    names = list(model.state_dict())

    def step() -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        loss = model(observation, actions, noise, time)
        loss.mean().backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        model.zero_grad(set_to_none=True)
        return loss.detach(), gradients

    loss, gradients = step()
    checkpoint_activations(model, checkpointed)
    if compiled:
        compile_blocks(model, backend="aot_eager")  # traced forward and backward, without a C++ compiler
    assert list(model.state_dict()) == names
    again, found = step()
    torch.testing.assert_close(again, loss, atol=1e-5, rtol=1e-5)
    for gradient, wanted in zip(found, gradients, strict=True):
        assert (gradient is None) == (wanted is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-3)


def test_checkpointing_keeps_less_for_the_backward_pass(model, config, make_observation, make_flow) -> None:
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[-1] += tensor.nbytes
        return tensor

    for on in (False, True):
        checkpoint_activations(model, on)
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(make_observation(config), *make_flow(config))
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize(
    "config", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["pi0", "pi05"], indirect=True
)  # compiled for ten seconds each, and their feed-forward blocks are the same
def test_what_is_computed_again_is_not_kept_and_changes_no_gradient(model, config, make_observation, make_flow) -> None:
    kept: list[int] = []
    gradients = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[-1] += tensor.nbytes
        return tensor

    for on in (False, True):
        torch._dynamo.reset()
        recompute_products(model, on)
        compile_blocks(model, backend="aot_eager_decomp_partition")  # what is kept is chosen as it is by inductor
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(make_observation(config), *make_flow(config)).mean()
        loss.backward()
        gradients.append([each.grad for each in model.parameters() if each.grad is not None])
        model.zero_grad(set_to_none=True)
    assert kept[1] < 0.95 * kept[0]
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)


def test_nothing_of_a_frozen_vlm_is_kept(model, config, make_observation, make_flow) -> None:
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    model.paligemma_with_expert.paligemma.requires_grad_(False)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        cache = model.prefix_cache(make_observation(config))
        assert kept == []
        model(make_observation(config), *make_flow(config)).mean().backward()
    assert not any(tensor.requires_grad for layer in cache.keys_values for tensor in layer)
    assert kept
    assert model.action_in_proj.weight.grad is not None
