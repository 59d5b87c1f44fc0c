from __future__ import annotations

import torch

from rlinf_isaac.pi0.compiled import compile_blocks


def test_compiled_blocks_give_the_same_loss_and_gradients(model, config, make_observation, make_flow) -> None:
    observation, (actions, noise, time) = make_observation(config), make_flow(config)
    names = list(model.state_dict())

    def step() -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        loss = model(observation, actions, noise, time)
        loss.mean().backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        model.zero_grad(set_to_none=True)
        return loss.detach(), gradients

    loss, gradients = step()
    compile_blocks(model, backend="aot_eager")  # traced forward and backward, without a C++ compiler
    assert list(model.state_dict()) == names
    again, found = step()
    torch.testing.assert_close(again, loss, atol=1e-5, rtol=1e-5)
    for gradient, wanted in zip(found, gradients, strict=True):
        assert (gradient is None) == (wanted is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-3)
