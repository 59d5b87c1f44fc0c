"""One step of AdamW for one tensor in a Triton kernel, which reads and writes each number once.

What torch offers for float32 copies of bfloat16 parameters goes over 3.5 billion numbers four times: it makes the
gradient float32, scales it, steps, and rounds. And it waits for the gradient's norm in between, to know whether there
is something to scale, while the GPU has nothing to do. Here the factor stays on the device.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _step(
    parameter, trained, gradient, mean, square, factor, count,
    keep, mean_rate, square_keep, square_rate, rate, root, epsilon,
    ROUND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    scale = tl.load(factor)
    inside = offsets < tl.where(scale == scale, count, 0)  # nothing is changed where the factor is not a number
    slope = tl.load(gradient + offsets, mask=inside, other=0.0).to(tl.float32) * scale
    value = tl.load(trained + offsets, mask=inside, other=0.0)
    first = tl.load(mean + offsets, mask=inside, other=0.0)
    second = tl.load(square + offsets, mask=inside, other=0.0)
    first += (slope - first) * mean_rate
    second = second * square_keep + slope * slope * square_rate
    value = value * keep - rate * first / (tl.sqrt(second) * root + epsilon)
    tl.store(trained + offsets, value, mask=inside)
    tl.store(mean + offsets, first, mask=inside)
    tl.store(square + offsets, second, mask=inside)
    if ROUND:
        tl.store(parameter + offsets, value.to(parameter.dtype.element_ty), mask=inside)


def adamw_step(
    parameter: Tensor,
    trained: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    factor: Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """`torch.optim.AdamW`'s step of `trained`, whose value is then rounded to `parameter`.

    Args:
        parameter: of any dtype and shape; `trained` itself, or what is to hold its rounded value.
        trained, mean, square: float32, of that shape, contiguous: weights and moments, changed in place.
        gradient: of the parameter; it is read.
        factor: scalar float32 on the device that the gradient is multiplied with; NaN leaves everything as it is.
        step: number of this step, from 1 on.
    """
    mean_keep, square_keep = betas
    count = trained.numel()
    if not count:
        return
    _step[(triton.cdiv(count, BLOCK),)](
        *(parameter, trained, gradient.contiguous(), mean, square, factor, count),
        *(1 - lr * weight_decay, 1 - mean_keep, square_keep, 1 - square_keep),
        *(lr / (1 - mean_keep**step), (1 - square_keep**step) ** -0.5, eps),
        ROUND=parameter.data_ptr() != trained.data_ptr(),
        BLOCK=BLOCK,
    )
