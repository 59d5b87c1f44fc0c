"""The norm of all gradients and a step of AdamW, each a single Triton kernel that goes over every number once.

What torch offers for float32 copies of bfloat16 parameters goes over 3.5 billion numbers four times: it makes the
gradient float32, scales it, steps, and rounds. And it waits for the gradient's norm in between, to know whether there
is something to scale, while the GPU has nothing to do. Here the factor stays on the device.

A kernel finds its tensors through a table of addresses. Every block of it works on `BLOCK` numbers of one tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
_ALIGNMENT = 16
"""Bytes, and numbers. Where all tensors begin at a multiple of it and have a multiple of it, a thread reads and writes
several numbers at a time: what is loaded from a table, Triton knows nothing about."""


@triton.jit
def _address(row, column: tl.constexpr, TYPE: tl.constexpr, ALIGNMENT: tl.constexpr):
    address = tl.load(row + column).to(tl.pointer_type(TYPE))
    return tl.multiple_of(address, ALIGNMENT) if ALIGNMENT > 1 else address


@triton.jit
def _count(counts, tensor, ALIGNMENT: tl.constexpr):
    count = tl.load(counts + tensor)
    return tl.multiple_of(count, ALIGNMENT) if ALIGNMENT > 1 else count


@triton.jit
def _squares(addresses, blocks, counts, sums, TYPE: tl.constexpr, ALIGNMENT: tl.constexpr, BLOCK: tl.constexpr):
    block = tl.program_id(0)
    tensor = tl.load(blocks + 2 * block).to(tl.int64)
    offsets = tl.load(blocks + 2 * block + 1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < _count(counts, tensor, ALIGNMENT)
    gradient = _address(addresses + 5 * tensor, 2, TYPE, ALIGNMENT)
    value = tl.load(gradient + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(sums + block, tl.sum(value * value, 0))


@triton.jit
def _step(
    addresses, blocks, counts, rates, factor, keep, mean_rate, square_keep, square_rate, epsilon,
    TYPE: tl.constexpr, ROUND: tl.constexpr, ALIGNMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    tensor = tl.load(blocks + 2 * block).to(tl.int64)
    offsets = tl.load(blocks + 2 * block + 1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    scale = tl.load(factor)
    if scale != scale:
        return  # nothing is changed where the factor is not a number
    inside = offsets < _count(counts, tensor, ALIGNMENT)
    row = addresses + 5 * tensor
    trained = _address(row, 1, tl.float32, ALIGNMENT) + offsets
    gradient = _address(row, 2, TYPE, ALIGNMENT) + offsets
    mean = _address(row, 3, tl.float32, ALIGNMENT) + offsets
    square = _address(row, 4, tl.float32, ALIGNMENT) + offsets
    slope = tl.load(gradient, mask=inside, other=0.0).to(tl.float32) * scale
    value = tl.load(trained, mask=inside, other=0.0)
    first = tl.load(mean, mask=inside, other=0.0)
    second = tl.load(square, mask=inside, other=0.0)
    first += (slope - first) * mean_rate
    second = second * square_keep + slope * slope * square_rate
    rate = tl.load(rates + 2 * tensor)
    root = tl.load(rates + 2 * tensor + 1)
    value = value * keep - rate * first / (tl.sqrt(second) * root + epsilon)
    tl.store(trained, value, mask=inside)
    tl.store(mean, first, mask=inside)
    tl.store(square, second, mask=inside)
    if ROUND:
        parameter = _address(row, 0, TYPE, ALIGNMENT) + offsets
        tl.store(parameter, value.to(TYPE), mask=inside)


class Trained(NamedTuple):
    """A parameter, what is trained for it, and the moments of that: contiguous, on one device, of one shape.

    `parameter` is `trained` itself (float32), or bfloat16: it is to hold the rounded value. The others are float32.
    """

    parameter: Tensor
    trained: Tensor
    mean: Tensor
    square: Tensor


class Kernels:
    """The two kernels for parameters of one number format, all of which have a gradient in every call.

    Args:
        tensors: what is trained; the parameters are all bfloat16, or all what is trained.
    """

    def __init__(self, tensors: Sequence[Trained]) -> None:
        assert all(each.is_contiguous() for four in tensors for each in four)
        self._device = tensors[0].trained.device
        self._type = tl.bfloat16 if tensors[0].parameter.dtype == torch.bfloat16 else tl.float32
        self._own = torch.tensor([[each.data_ptr() for each in four] for four in tensors])
        counts = torch.tensor([each.trained.numel() for each in tensors])
        self._even = bool((counts % _ALIGNMENT == 0).all())
        blocks = -(-counts // BLOCK)
        tensor = torch.repeat_interleave(torch.arange(len(blocks)), blocks)
        number = torch.arange(int(blocks.sum())) - torch.repeat_interleave(blocks.cumsum(0) - blocks, blocks)
        self._blocks = torch.stack([tensor, number], 1).to(torch.int32).to(self._device)
        self._counts = counts.to(self._device)

    def find(self, gradients: Sequence[Tensor]) -> None:
        """Say where the gradients are, contiguous and of the parameters' format, for the next calls."""
        pointers = torch.tensor([each.data_ptr() for each in gradients])
        addresses = torch.stack([*self._own[:, :2].unbind(1), pointers, *self._own[:, 2:].unbind(1)], 1)
        self._alignment = _ALIGNMENT if self._even and bool((addresses % _ALIGNMENT == 0).all()) else 1
        self._addresses = self._upload(addresses)

    def squared_norm(self) -> Tensor:
        """The sum of the squares of all gradients, scalar float64."""
        sums = torch.zeros(len(self._blocks), device=self._device)
        if not len(sums):  # a process may hold no share of the sharded tensors
            return sums.sum(dtype=torch.float64)
        tables = self._addresses, self._blocks, self._counts
        _squares[(len(sums),)](*tables, sums, TYPE=self._type, ALIGNMENT=self._alignment, BLOCK=BLOCK)
        return sums.sum(dtype=torch.float64)

    def step(
        self,
        steps: Sequence[int],
        factor: Tensor,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        """`torch.optim.AdamW`'s step of everything trained, whose value is then rounded to the parameters.

        Args:
            steps: the number of this step for each tensor, from 1 on.
            factor: scalar float32 on the device that gradients are multiplied with; NaN leaves everything as it is.
            lr, betas, eps, weight_decay: of `torch.optim.AdamW`.
        """
        if not len(self._blocks):
            return
        mean_keep, square_keep = betas
        rates = [(lr / (1 - mean_keep**step), (1 - square_keep**step) ** -0.5) for step in steps]
        _step[(len(self._blocks),)](
            *(self._addresses, self._blocks, self._counts, self._upload(torch.tensor(rates)), factor),
            *(1 - lr * weight_decay, 1 - mean_keep, square_keep, 1 - square_keep, eps),
            TYPE=self._type,
            ROUND=self._type == tl.bfloat16,
            ALIGNMENT=self._alignment,
            BLOCK=BLOCK,
        )

    def _upload(self, table: Tensor) -> Tensor:
        on_gpu = self._device.type == "cuda"
        return (table.pin_memory() if on_gpu else table).to(self._device, non_blocking=on_gpu)
