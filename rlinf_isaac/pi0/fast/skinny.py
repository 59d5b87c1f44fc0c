"""Triton kernels for the action expert on few tokens: linear layers that are limited by how fast weights are read.

One observation has 50 action tokens, and each of 10 denoising steps reads the 0.6 GB of the expert anew. So norm,
projection, rotary embedding, activation and residual are fused into four kernels per layer around the attention. An
RMSNorm needs no pass of its own: its root mean square is a factor of the whole row, which is applied to the product,
    norm(x) W^T = (x * scale) W^T / rms(x) + shift W^T,
and summed up while x is read for the product. `shift` W^T (pi0.5) is the same for all tokens of a step.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlinf_isaac.pi0.fast.attention import arrivals
from rlinf_isaac.pi0.fast.rows import gelu_tanh


@triton.jit
def _two_products(x, scale, weight, row, row_inside, first, second, width, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """(x * scale) times rows `first` and `second` of the weight, and the sum of squares of x; row by row."""
    one = tl.zeros([row.shape[0], BLOCK_N], tl.float32)
    two = tl.zeros([row.shape[0], BLOCK_N], tl.float32)
    squares = tl.zeros([row.shape[0]], tl.float32)
    for start in range(0, width, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        tile = tl.load(x + row[:, None] * width + k[None, :], mask=row_inside[:, None], other=0.0)
        w1 = tl.load(weight + first[None, :] * width + k[:, None])
        w2 = tl.load(weight + second[None, :] * width + k[:, None])
        exact = tile.to(tl.float32)
        squares += tl.sum(exact * exact, 1)
        scaled = (exact * tl.load(scale + k)[None, :]).to(tile.dtype)
        one = tl.dot(scaled, w1, one, input_precision="ieee")
        two = tl.dot(scaled, w2, two, input_precision="ieee")
    return one, two, squares


@triton.jit
def _norm_qkv(
    x, scale, weight, constant, cos, sin, queries, keys, values,
    rows, width, tokens, context, offset, epsilon,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, CONSTANT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    HALF: tl.constexpr = HEAD_DIM // 2
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_inside = row < rows
    head = tl.program_id(1) // (HALF // BLOCK_N)
    lane = tl.program_id(1) % (HALF // BLOCK_N) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = head * HEAD_DIM + lane
    a, b, squares = _two_products(x, scale, weight, row, row_inside, first, first + HALF, width, BLOCK_N, BLOCK_K)
    inverse = tl.rsqrt(squares / width + epsilon)[:, None]
    a, b = a * inverse, b * inverse
    if CONSTANT:
        a += tl.load(constant + first)[None, :]
        b += tl.load(constant + first + HALF)[None, :]
    mask = row_inside[:, None]
    if head < HEADS + KV_HEADS:
        angle = row[:, None] * HALF + lane[None, :]
        c, s = tl.load(cos + angle, mask=mask, other=0.0), tl.load(sin + angle, mask=mask, other=0.0)
        rotated = a * c - b * s
        b = b * c + a * s
        a = rotated
    a, b = a.to(x.dtype.element_ty), b.to(x.dtype.element_ty)
    kept = ((row // tokens) * KV_HEADS + (head - HEADS) % KV_HEADS) * context + offset + row % tokens
    cached = kept[:, None].to(tl.int64) * HEAD_DIM + lane[None, :]
    if head < HEADS:
        own = row[:, None] * (HEADS * HEAD_DIM) + first[None, :]
        tl.store(queries + own, a, mask=mask)
        tl.store(queries + own + HALF, b, mask=mask)
    elif head < HEADS + KV_HEADS:
        tl.store(keys + cached, a, mask=mask)
        tl.store(keys + cached + HALF, b, mask=mask)
    else:
        tl.store(values + cached, a, mask=mask)
        tl.store(values + cached + HALF, b, mask=mask)


def norm_qkv(
    x: Tensor,
    scale: Tensor,
    weight: Tensor,
    constant: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    heads: int,
    offset: int,
) -> Tensor:
    """RMSNorm, projection to queries, keys and values, rotation. Returns the queries (B * T, heads * D).

    Args:
        x: (B * T, width).
        scale: (width,) float32, of the norm.
        weight: ((heads + 2 * kv_heads) * D, width).
        constant: added to the projections, (len(weight),) float32.
        cos, sin: (B * T, D / 2) float32.
        keys, values: (B, kv_heads, context, D), of which [offset, offset + T) is written.
        heads: query heads.
        offset: see there.
    """
    batch, kv_heads, context, head_dim = keys.shape
    rows, width = x.shape
    queries = x.new_empty(rows, heads * head_dim)
    block_n = 16
    grid = (triton.cdiv(rows, 64), (heads + 2 * kv_heads) * (head_dim // 2 // block_n))
    _norm_qkv[grid](
        x, scale, weight, constant, cos, sin, queries, keys, values,
        rows, width, rows // batch, context, offset, 1e-6,
        HEADS=heads, KV_HEADS=kv_heads, HEAD_DIM=head_dim, CONSTANT=constant is not None,
        BLOCK_M=64, BLOCK_N=block_n, BLOCK_K=_block_k(width), num_warps=4, num_stages=4,
    )  # fmt: skip
    return queries


@triton.jit
def _norm_geglu(
    x, scale, weight, constant, out, rows, width, mlp, epsilon,
    CONSTANT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_inside = row < rows
    first = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    gate, up, squares = _two_products(x, scale, weight, row, row_inside, first, first + mlp, width, BLOCK_N, BLOCK_K)
    inverse = tl.rsqrt(squares / width + epsilon)[:, None]
    gate, up = gate * inverse, up * inverse
    if CONSTANT:
        gate += tl.load(constant + first)[None, :]
        up += tl.load(constant + first + mlp)[None, :]
    result = (gelu_tanh(gate) * up).to(out.dtype.element_ty)
    tl.store(out + row[:, None] * mlp + first[None, :], result, mask=row_inside[:, None])


def norm_geglu(x: Tensor, scale: Tensor, weight: Tensor, constant: Tensor | None) -> Tensor:
    """RMSNorm and the first half of a gated MLP: x (M, width), weight (2 * mlp, width) -> (M, mlp)."""
    rows, width = x.shape
    mlp = weight.shape[0] // 2
    out = x.new_empty(rows, mlp)
    block_n = 32 if mlp % 32 == 0 else 16
    _norm_geglu[(triton.cdiv(rows, 64), mlp // block_n)](
        x, scale, weight, constant, out, rows, width, mlp, 1e-6, CONSTANT=constant is not None,
        BLOCK_M=64, BLOCK_N=block_n, BLOCK_K=_block_k(width), num_warps=4, num_stages=4,
    )  # fmt: skip
    return out


@triton.jit
def _linear_residual(
    x, weight, residual, gate, partial, arrived, rows, width, columns,
    GATE: tl.constexpr, SPLITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_inside = row < rows
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2)
    share = width // SPLITS
    product = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(split * share, (split + 1) * share, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        tile = tl.load(x + row[:, None] * width + k[None, :], mask=row_inside[:, None], other=0.0)
        w = tl.load(weight + column[None, :] * width + k[:, None])
        product = tl.dot(tile, w, product, input_precision="ieee")
    if SPLITS > 1:
        slot = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        inner = tl.arange(0, BLOCK_M)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        tl.store(partial + (slot * SPLITS + split) * BLOCK_M * BLOCK_N + inner, product)
        tl.debug_barrier()
        if tl.atomic_add(arrived + slot, 1, sem="acq_rel") < SPLITS - 1:
            return
        tl.store(arrived + slot, 0)
        product = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for other in range(SPLITS):  # in order, whoever came last: the sum is always the same
            product += tl.load(partial + (slot * SPLITS + other) * BLOCK_M * BLOCK_N + inner)
    if GATE:
        product *= tl.load(gate + column)[None, :]
    own = residual + row[:, None] * columns + column[None, :]
    before = tl.load(own, mask=row_inside[:, None], other=0.0)
    tl.store(own, (before.to(tl.float32) + product).to(before.dtype), mask=row_inside[:, None])


def linear_residual(x: Tensor, weight: Tensor, residual: Tensor, gate: Tensor | None = None) -> None:
    """Adds x (M, width) times weight (columns, width), times `gate` (columns,) float32, to `residual` in place."""
    rows, width = x.shape
    columns = weight.shape[0]
    blocks = triton.cdiv(rows, 64)
    splits = 4 if width % 512 == 0 else 1
    block_k = _block_k(width // splits)
    partial = torch.empty(blocks * (columns // 32) * splits, 64 * 32, dtype=torch.float32, device=x.device)
    _linear_residual[(blocks, columns // 32, splits)](
        x, weight, residual, gate, partial, arrivals(x.device), rows, width, columns,
        GATE=gate is not None, SPLITS=splits, BLOCK_M=64, BLOCK_N=32, BLOCK_K=block_k, num_warps=4, num_stages=4,
    )  # fmt: skip


def _block_k(width: int) -> int:
    """The largest step along the inner dimension, up to 128, that divides it."""
    return next(size for size in (128, 64, 32, 16) if width % size == 0)
