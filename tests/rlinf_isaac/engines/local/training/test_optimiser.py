from __future__ import annotations

import pytest
import torch
from torch import nn

from rlinf_isaac.engines.local.training.optimiser import MasterAdamW, clip_gradients, gradient_norm, trained_copy


def parameters(dtype: torch.dtype, seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, 3), (5,), (2, 2))
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def named(chosen: list[nn.Parameter]) -> tuple[list[tuple[str, nn.Parameter]], dict[str, torch.Tensor]]:
    """Names and parameters, and their values in float32."""
    return [(str(n), each) for n, each in enumerate(chosen)], {
        str(n): each.detach().float() for n, each in enumerate(chosen)
    }


def give_gradients(chosen: list[nn.Parameter], seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in chosen:
        parameter.grad = (scale * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype)


def test_in_float32_it_is_adamw() -> None:
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    options = dict(lr=0.1, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    mine, other = MasterAdamW(*named(ours), **options), torch.optim.AdamW(theirs, **options)
    for step in range(3):
        for chosen, optimiser in ((ours, mine), (theirs, other)):
            give_gradients(chosen, step)
            optimiser.step()
            optimiser.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(trained_copy(mine, parameter) is parameter for parameter in ours)


def test_bfloat16_follows_the_float32_copies() -> None:
    """Steps far below what bfloat16 can hold next to the weights add up; in bfloat16 alone, they are lost."""
    rounded, exact, alone = parameters(torch.bfloat16), parameters(torch.bfloat16), parameters(torch.bfloat16)
    exact = [nn.Parameter(parameter.detach().float()) for parameter in exact]
    options = dict(lr=1e-4, weight_decay=0.0, fused=True)
    pairs = [(rounded, MasterAdamW(*named(rounded), **options))]
    pairs += [(chosen, torch.optim.AdamW(chosen, **options)) for chosen in (exact, alone)]
    start = [parameter.detach().clone() for parameter in rounded]
    for _ in range(100):
        for chosen, optimiser in pairs:
            give_gradients(chosen, seed=7)
            optimiser.step()
            optimiser.zero_grad()
    for found, wanted, begun in zip(rounded, exact, start, strict=True):
        torch.testing.assert_close(found, wanted.to(torch.bfloat16), atol=0, rtol=1e-2)
        assert (found.float() - begun.float()).norm() > 3 * 1e-3
    moved = sum((found.float() - begun.float()).norm() for found, begun in zip(alone, start, strict=True))
    assert moved < 0.5 * sum(
        (found.float() - begun.float()).norm() for found, begun in zip(rounded, start, strict=True)
    )


def test_gradients_are_used_up_and_forgotten() -> None:
    chosen = parameters(torch.bfloat16)
    optimiser = MasterAdamW(*named(chosen), lr=0.1)
    give_gradients(chosen[:2], 0)  # the third takes part in nothing
    optimiser.step()
    assert all(parameter.grad is None for parameter in chosen)
    assert trained_copy(optimiser, chosen[2]) not in optimiser.state
    give_gradients(chosen, 1)
    optimiser.zero_grad()
    before = [parameter.detach().clone() for parameter in chosen]
    optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(chosen, before, strict=True))
    with pytest.raises(ValueError, match="closure"):
        optimiser.step(lambda: 0.0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_clipping_gives_the_bits_of_torch(scale: float) -> None:
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    for chosen in (ours, theirs):
        give_gradients(chosen, 3, scale)
    wanted = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    norm = gradient_norm(ours)
    clip_gradients(ours, norm, 1.0)
    assert torch.equal(norm, wanted)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))
