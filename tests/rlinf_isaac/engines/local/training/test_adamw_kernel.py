"""The kernels against torch; without a GPU Triton interprets them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

pytest.importorskip("triton")
COMPILE = """
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from rlinf_isaac.engines.local.training.adamw_kernel import BLOCK, _squares, _step

tables = {"addresses": "*i64", "blocks": "*i32", "counts": "*i64"}
numbers = dict.fromkeys(("keep", "mean_rate", "square_keep", "square_rate", "epsilon"), "fp32")
for kernel, arguments, round in (
    (_squares, {"sums": "*fp32"}, {}),
    (_step, {"rates": "*fp32", "factor": "*fp32", **numbers}, {"ROUND": True}),
):
    constants = {"TYPE": tl.bfloat16, "ALIGNMENT": 16, "BLOCK": BLOCK, **round}
    signature = {**tables, **arguments, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    print(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"].count("ld.global.v4"))
"""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDING = 0 if torch.cuda.is_available() else 2**-7  # the interpreter cuts off where a GPU rounds to the nearest
OPTIONS = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
SHAPES = ((), (7,), (33, 61), (1024,), (5, 1025))
EVEN = ((16,), (1024,), (48, 33))


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request) -> torch.dtype:
    return request.param


def drawn(seed: int, dtype: torch.dtype, shapes=SHAPES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in shapes]


def begun(dtype: torch.dtype, shapes=SHAPES):
    """Tensors as an optimiser has them at the beginning."""
    from rlinf_isaac.engines.local.training.adamw_kernel import Trained

    values = drawn(0, torch.float32, shapes)
    return [
        Trained(value if dtype == torch.float32 else value.to(dtype), value, *torch.zeros((2, *value.shape)).to(DEVICE))
        for value in values
    ]


@pytest.mark.parametrize("shapes", [SHAPES, EVEN], ids=["any size", "multiples of 16"])
@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "not aligned"])
def test_steps_and_norms_are_those_of_torch(dtype, offset, shapes):
    from rlinf_isaac.engines.local.training.adamw_kernel import Kernels

    tensors = begun(dtype, shapes)
    expected = [nn.Parameter(each.trained.clone()) for each in tensors]
    reference, kernels = torch.optim.AdamW(expected, **OPTIONS), Kernels(tensors)
    for step in range(1, 5):
        gradients = drawn(step, dtype, shapes)
        memory = torch.empty(sum(each.numel() for each in gradients) + offset, dtype=dtype, device=DEVICE)
        places = memory[offset:].split([each.numel() for each in gradients])
        for place, each in zip(places, gradients, strict=True):
            place.copy_(each.reshape(-1))
        kernels.find(places if offset else gradients)
        norm = torch.nn.utils.get_total_norm([each.float() for each in gradients])
        assert float(kernels.squared_norm()) ** 0.5 == pytest.approx(float(norm), rel=1e-6)
        factor = torch.tensor(0.5 if step % 2 else 1.0, device=DEVICE)
        kernels.step([step] * len(tensors), factor, **OPTIONS)
        for parameter, gradient in zip(expected, gradients, strict=True):
            parameter.grad = gradient.float() * factor
        reference.step()
    for found, wanted in zip(tensors, expected, strict=True):
        torch.testing.assert_close(found.trained, wanted.detach(), rtol=2e-6, atol=2e-7)
        torch.testing.assert_close(found.parameter, found.trained.to(dtype), rtol=ROUNDING, atol=0)
        for moment, name in ((found.mean, "exp_avg"), (found.square, "exp_avg_sq")):
            torch.testing.assert_close(moment, reference.state[wanted][name], rtol=2e-6, atol=1e-7)


def test_a_factor_that_is_no_number_changes_nothing(dtype):
    from rlinf_isaac.engines.local.training.adamw_kernel import Kernels

    tensors = begun(dtype)
    before = [each.clone() for four in tensors for each in four]
    kernels = Kernels(tensors)
    gradients = drawn(1, dtype)
    kernels.find(gradients)
    kernels.step([3] * len(tensors), torch.tensor(float("nan"), device=DEVICE), **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip([each for four in tensors for each in four], before, strict=True))


def test_an_empty_share(dtype):
    from rlinf_isaac.engines.local.training.adamw_kernel import Kernels

    kernels, gradients = Kernels(begun(dtype, [(0, 5)])), drawn(1, dtype, [(0, 5)])
    kernels.find(gradients)
    assert float(kernels.squared_norm()) == 0
    kernels.step([1], torch.ones((), device=DEVICE), **OPTIONS)


def test_a_clipped_step_is_clipping_and_a_step(dtype):
    """Also where a parameter gets its first gradient later than others, and where the loss is not finite."""
    from rlinf_isaac.engines.local.training.optimiser import MasterAdamW, clip_gradients, gradient_norm

    sets = [[nn.Parameter(value) for value in drawn(0, dtype)] for _ in range(2)]
    exact = {str(number): each.detach().float() for number, each in enumerate(sets[0])}
    options = OPTIONS | {"fused": True}
    mine, other = (
        MasterAdamW(
            [(str(n), each) for n, each in enumerate(chosen)], {n: e.clone() for n, e in exact.items()}, **options
        )
        for chosen in sets
    )
    for step in range(4):
        for chosen in sets:
            for parameter, gradient in zip(chosen, drawn(step, dtype), strict=True):
                parameter.grad = None if step == 0 and parameter.dim() == 1 else gradient * 10 ** (step - 2)
        if step == 2:
            before = [each.detach().clone() for each in sets[0]]
            mine.clipped_step(1.0, sound=torch.tensor(float("inf"), device=DEVICE))
            assert all(torch.equal(a, b) for a, b in zip(sets[0], before, strict=True))
            return
        norm = gradient_norm(sets[1])
        found = mine.clipped_step(1.0, sound=torch.zeros((), device=DEVICE))
        assert float(found) == pytest.approx(float(norm), rel=1e-6 if dtype == torch.float32 else 5e-3)
        clip_gradients(sets[1], norm, 1.0)
        other.step()
        mine.zero_grad()
        for ours, theirs in zip(mine.masters.values(), other.masters.values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-6)
            assert mine.state[ours].keys() == other.state[theirs].keys()


def test_they_compile_for_a_gpu_and_read_four_words_at_a_time(tmp_path):
    """For Hopper, which takes no GPU; in a process that does not interpret kernels."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    # Of 1024 numbers each of 128 threads has 8: 4 words of the gradients in bfloat16, 8 of each of the other three.
    assert done.stdout.split() == ["1", "7"]
