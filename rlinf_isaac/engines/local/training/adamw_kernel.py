"""Two Triton kernels: the norm of all gradients, and a step of AdamW. Each reads every number only once.

With torch alone, a step with float32 copies of bfloat16 parameters passes four times over 3.5 billion numbers: it
converts the gradient to float32, scales it, steps, and rounds. In between, the CPU waits for the gradient's norm to
know the scale, while the GPU is idle. Here the scale stays on the device.

A kernel finds its tensors through a table of addresses. Every block works on `BLOCK` numbers of one tensor.
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
"""If the addresses (in bytes) and the sizes (in numbers) of all tensors are multiples of this, the kernels tell Triton
so, and a thread reads and writes several numbers at a time. Triton cannot infer it for addresses from a table."""


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
        return  # a NaN factor leaves everything unchanged
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
    """The tensors of one parameter: contiguous, on one device, of the same shape.

    Attributes:
        parameter: `trained` itself (float32), or a bfloat16 tensor that gets its rounded value.
        trained: the trained value, float32.
        mean, square: AdamW's moments, float32.
    """

    parameter: Tensor
    trained: Tensor
    mean: Tensor
    square: Tensor


class Kernels:
    """The two kernels for parameters of one dtype; every parameter must have a gradient in every call.

    Args:
        tensors: tensors of the parameters. Either all parameters are bfloat16, or all are the trained tensors.
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
        """Set the gradients for the next calls; they are contiguous and have the parameters' dtype."""
        pointers = torch.tensor([each.data_ptr() for each in gradients])
        addresses = torch.stack([*self._own[:, :2].unbind(1), pointers, *self._own[:, 2:].unbind(1)], 1)
        self._alignment = _ALIGNMENT if self._even and bool((addresses % _ALIGNMENT == 0).all()) else 1
        self._addresses = self._upload(addresses)

    def squared_norm(self) -> Tensor:
        """The sum of the squares of all gradients, a float64 scalar."""
        sums = torch.zeros(len(self._blocks), device=self._device)
        if not len(sums):  # a process may have an empty shard of every tensor
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
        """Take the step of `torch.optim.AdamW` for all trained tensors, and round them to the parameters.

        Args:
            steps: number of this step for each tensor, from 1 on.
            factor: float32 scalar on the device by which gradients are multiplied; NaN leaves everything unchanged.
            lr, betas, eps, weight_decay: as in `torch.optim.AdamW`.
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
