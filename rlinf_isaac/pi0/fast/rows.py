"""Triton kernels for the row-wise operations between GEMMs: residual and norm, rotary embedding, GeGLU.

Sums are in float32. Results have the dtype of the input and are rounded at the same places as in `pi0.gemma`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def wait(CHAIN: tl.constexpr):
    """Waits until the previous kernel has finished. A kernel launched with `chained` must call it before any load."""
    if CHAIN:
        tl.extra.cuda.gdc_wait()


@triton.jit
def release(CHAIN: tl.constexpr):
    """Allows the next kernel to start once every block has called this. The next kernel then blocks in `wait`."""
    if CHAIN:
        tl.extra.cuda.gdc_launch_dependents()


def chained(wanted: bool = True) -> dict[str, bool]:
    """Launch options of a kernel that calls `wait`: the kernel is set up while the previous one still runs.

    This is programmatic dependent launch, on Hopper and later. It is worth it between kernels of a few microseconds.
    """
    on = wanted and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0)
    return {"CHAIN": True, "launch_pdl": True} if on else {"CHAIN": False}


@triton.jit
def gelu_tanh(x):
    """GELU, tanh approximation: x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 x^3))."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def _residual_norm(
    x, update, gate, scale, shift, normed, rows, width, epsilon,
    PARTS: tl.constexpr, GATE: tl.constexpr, SHIFT: tl.constexpr, CENTRE: tl.constexpr, BLOCK: tl.constexpr,
    CHAIN: tl.constexpr,
):  # fmt: skip
    wait(CHAIN)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x + row * width + column, mask=inside, other=0.0)
    if PARTS:
        added = tl.zeros([BLOCK], tl.float32)
        for part in tl.static_range(PARTS):
            added += tl.load(update + (part * rows + row) * width + column, mask=inside, other=0.0).to(tl.float32)
        if GATE:
            added *= tl.load(gate + column, mask=inside, other=0.0)
        value = (value.to(tl.float32) + added).to(x.dtype.element_ty)
        tl.store(x + row * width + column, value, mask=inside)
    release(CHAIN)
    value = value.to(tl.float32)
    if CENTRE:
        value = tl.where(inside, value - tl.sum(value, 0) / width, 0.0)
    value *= tl.rsqrt(tl.sum(value * value, 0) / width + epsilon)
    value *= tl.load(scale + column, mask=inside, other=0.0)
    if SHIFT:
        value += tl.load(shift + column, mask=inside, other=0.0)
    tl.store(normed + row * width + column, value.to(normed.dtype.element_ty), mask=inside)


def residual_norm(
    x: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    update: Tensor | None = None,
    gate: Tensor | None = None,
    *,
    centre: bool = False,
    epsilon: float = 1e-6,
) -> Tensor:
    """Adds `update`, times `gate` (width,), to x (M, width) in place, and returns the norm of x.

    The update is (M, width), or (parts, M, width) float32, whose parts are summed. The norm is RMSNorm, or LayerNorm
    with `centre`; its result is multiplied by `scale` and `shift` is added, both (width,) float32.
    """
    rows, width = x.shape
    normed = torch.empty_like(x)
    block = triton.next_power_of_2(width)
    parts = 0 if update is None else 1 if update.ndim == 2 else len(update)
    _residual_norm[(rows,)](
        x, update, gate, scale, shift, normed, rows, width, epsilon,
        PARTS=parts, GATE=gate is not None, SHIFT=shift is not None, CENTRE=centre, BLOCK=block,
        num_warps=8 if block >= 2048 else 4, **chained(rows <= 256),
    )  # fmt: skip
    return normed


@triton.jit
def _rotate(
    projected, cos, sin, keys, values, tokens, context, offset,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head, lane = tl.arange(0, BLOCK)[:, None], tl.arange(0, HALF)[None, :]
    own = projected + (row * (HEADS + 2 * KV_HEADS) + head) * 2 * HALF + lane
    present = head < HEADS + 2 * KV_HEADS
    first, second = tl.load(own, mask=present, other=0.0), tl.load(own + HALF, mask=present, other=0.0)
    c, s = tl.load(cos + row * HALF + lane), tl.load(sin + row * HALF + lane)
    a, b = first.to(tl.float32), second.to(tl.float32)
    turned_first, turned_second = (a * c - b * s).to(first.dtype), (b * c + a * s).to(first.dtype)
    if HEADS:
        tl.store(own, turned_first, mask=head < HEADS)
        tl.store(own + HALF, turned_second, mask=head < HEADS)
    cache_row = ((row // tokens) * KV_HEADS + (head - HEADS) % KV_HEADS) * context + offset + row % tokens
    cached = cache_row * 2 * HALF + lane
    is_key = (head >= HEADS) & (head < HEADS + KV_HEADS)
    tl.store(keys + cached, turned_first, mask=is_key)
    tl.store(keys + cached + HALF, turned_second, mask=is_key)
    is_value = present & (head >= HEADS + KV_HEADS)
    tl.store(values + cached, first, mask=is_value)
    tl.store(values + cached + HALF, second, mask=is_value)


def rotate_and_keep(
    projected: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, offset: int, heads: int
) -> Tensor:
    """Rotates queries in place, writes rotated keys and the values into the cache, and returns the queries.

    Args:
        projected: (B * T, (heads + 2 * kv_heads) * D), queries, keys, values side by side.
        cos, sin: (B * T, D / 2) float32, rotary tables of the tokens' positions.
        keys, values: (B, kv_heads, context, D), the cache; context positions [offset, offset + T) are written.
        offset: context position of the first token.
        heads: number of query heads; 0 if `projected` has only keys and values.
    """
    batch, kv_heads, context, head_dim = keys.shape
    rows = projected.shape[0]
    _rotate[(rows,)](
        projected, cos, sin, keys, values, rows // batch, context, offset,
        HEADS=heads, KV_HEADS=kv_heads, HALF=head_dim // 2, BLOCK=triton.next_power_of_2(heads + 2 * kv_heads),
    )  # fmt: skip
    return projected[:, : heads * head_dim]


@triton.jit
def _geglu(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + 2 * row * width + column, mask=inside, other=0.0)
    up = tl.load(gate_up + (2 * row + 1) * width + column, mask=inside, other=0.0)
    # Rounded between GELU and product, as in `gemma.GatedMLP`.
    activated = gelu_tanh(gate.to(tl.float32)).to(gate.dtype).to(tl.float32)
    tl.store(out + row * width + column, (activated * up.to(tl.float32)).to(out.dtype.element_ty), mask=inside)


def geglu(gate_up: Tensor) -> Tensor:
    """gate_up (M, 2 * width), gate and up side by side -> gelu(gate) * up, (M, width)."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    block = min(2048, triton.next_power_of_2(width))
    _geglu[(rows, triton.cdiv(width, block))](gate_up, out, width, BLOCK=block, num_warps=8 if block >= 2048 else 4)
    return out
