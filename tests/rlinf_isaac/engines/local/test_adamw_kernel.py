"""The kernel against torch's AdamW; without a GPU Triton interprets it."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

pytest.importorskip("triton")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined: before anything imports one
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDING = 0 if torch.cuda.is_available() else 2**-7  # the interpreter cuts off where a GPU rounds to the nearest
OPTIONS = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (7,), (33, 61)], ids=str)
def test_steps_are_those_of_torch(dtype, shape):
    from rlinf_isaac.engines.local.adamw_kernel import adamw_step

    generator = torch.Generator().manual_seed(0)

    def draw() -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE)

    expected = nn.Parameter(draw())
    trained = expected.detach().clone()
    parameter = trained if dtype == torch.float32 else trained.to(dtype)
    mean, square = torch.zeros_like(trained), torch.zeros_like(trained)
    reference = torch.optim.AdamW([expected], **OPTIONS)
    for step in range(1, 5):
        gradient = draw().to(dtype)
        if gradient.dim() == 2:
            gradient = gradient.T.contiguous().T  # of another layout
        factor = torch.tensor(0.5 if step % 2 else 1.0, device=DEVICE)
        adamw_step(parameter, trained, gradient, mean, square, factor, step=step, **OPTIONS)
        expected.grad = gradient.float() * factor
        reference.step()
    torch.testing.assert_close(trained, expected.detach(), rtol=2e-6, atol=2e-7)
    torch.testing.assert_close(parameter, trained.to(dtype), rtol=ROUNDING, atol=0)
    for found, name in ((mean, "exp_avg"), (square, "exp_avg_sq")):
        torch.testing.assert_close(found, reference.state[expected][name], rtol=2e-6, atol=1e-7)


def test_a_factor_that_is_no_number_changes_nothing():
    from rlinf_isaac.engines.local.adamw_kernel import adamw_step

    tensors = [torch.rand(1500, device=DEVICE) for _ in range(4)]
    parameter = tensors[0].bfloat16()
    before = [each.clone() for each in (parameter, *tensors)]
    trained, gradient, mean, square = tensors
    factor = torch.tensor(float("nan"), device=DEVICE)
    adamw_step(parameter, trained, gradient, mean, square, factor, step=3, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip((parameter, *tensors), before, strict=True))
