"""Triton kernels for the action expert on few tokens, whose linear layers are limited by reading the weights.

One observation has 50 action tokens, and each of 10 denoising steps reads the expert's 0.6 GB again. So every
multiprocessor gets a part of each weight, and the operation after a product (rotary embedding, GeGLU) is done in the
same kernel.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlinf_isaac.pi0.fast.rows import chained, gelu_tanh, release, wait

BLOCK_M = 64
QKV = (16, 64, 4, 8)
GEGLU = (32, 64, 4, 8)
PARTS = (4, 32, 128, 4, 6)
"""Columns per block, steps along the inner dimension, warps, stages; `PARTS` begins with the number of parts. These
were the fastest of 9 to 16 settings tried on an H200 with one observation."""


@triton.jit
def _qkv(
    x, weight, cos, sin, queries, keys, values, rows, tokens, context, offset,
    WIDTH: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, CHAIN: tl.constexpr,
):  # fmt: skip
    HALF: tl.constexpr = HEAD_DIM // 2
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    mask = (row < rows)[:, None]
    head = tl.program_id(1) // (HALF // BLOCK_N)
    lane = tl.program_id(1) % (HALF // BLOCK_N) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = head * HEAD_DIM + lane
    a = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    b = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    wait(CHAIN)
    for start in range(0, WIDTH, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        tile = tl.load(x + row[:, None] * WIDTH + k[None, :], mask=mask, other=0.0)
        w = weight + first[None, :] * WIDTH + k[:, None]
        a = tl.dot(tile, tl.load(w), a, input_precision="ieee")
        b = tl.dot(tile, tl.load(w + HALF * WIDTH), b, input_precision="ieee")
    release(CHAIN)
    if head < HEADS + KV_HEADS:
        angle = row[:, None] * HALF + lane[None, :]
        c, s = tl.load(cos + angle, mask=mask, other=0.0), tl.load(sin + angle, mask=mask, other=0.0)
        rotated = a * c - b * s
        b = b * c + a * s
        a = rotated
    a, b = a.to(x.dtype.element_ty), b.to(x.dtype.element_ty)
    cache_row = ((row // tokens) * KV_HEADS + (head - HEADS) % KV_HEADS) * context + offset + row % tokens
    cached = cache_row[:, None].to(tl.int64) * HEAD_DIM + lane[None, :]
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


def linear_qkv(
    x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, *, heads: int, offset: int
) -> Tensor:
    """Projects x to queries, keys and values and rotates queries and keys. Returns the queries (B * T, heads * D).

    Args:
        x: (B * T, width).
        weight: ((heads + 2 * kv_heads) * D, width).
        cos, sin: (B * T, D / 2) float32, rotary tables of the tokens' positions.
        keys, values: (B, kv_heads, context, D), the cache; context positions [offset, offset + T) are written.
        heads: number of query heads.
        offset: context position of the first token.
    """
    batch, kv_heads, context, head_dim = keys.shape
    rows, width = x.shape
    queries = x.new_empty(rows, heads * head_dim)
    block_n, block_k, warps, stages = QKV
    grid = (triton.cdiv(rows, BLOCK_M), (heads + 2 * kv_heads) * (head_dim // 2 // block_n))
    _qkv[grid](
        x, weight, cos, sin, queries, keys, values, rows, rows // batch, context, offset,
        WIDTH=width, HEADS=heads, KV_HEADS=kv_heads, HEAD_DIM=head_dim,
        BLOCK_M=BLOCK_M, BLOCK_N=block_n, BLOCK_K=_step(width, block_k), num_warps=warps, num_stages=stages,
        **chained(),
    )  # fmt: skip
    return queries


@triton.jit
def _geglu(
    x, weight, out, rows,
    WIDTH: tl.constexpr, MLP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    CHAIN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    mask = (row < rows)[:, None]
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    gate = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    up = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    wait(CHAIN)
    for start in range(0, WIDTH, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        tile = tl.load(x + row[:, None] * WIDTH + k[None, :], mask=mask, other=0.0)
        w = weight + column[None, :] * WIDTH + k[:, None]
        gate = tl.dot(tile, tl.load(w), gate, input_precision="ieee")
        up = tl.dot(tile, tl.load(w + MLP * WIDTH), up, input_precision="ieee")
    release(CHAIN)
    result = (gelu_tanh(gate) * up).to(out.dtype.element_ty)
    tl.store(out + row[:, None] * MLP + column[None, :], result, mask=mask)


def linear_geglu(x: Tensor, weight: Tensor) -> Tensor:
    """First half of a gated MLP: x (M, width) -> (M, mlp). `weight` (2 * mlp, width) has the gate's rows first."""
    rows, width = x.shape
    mlp = weight.shape[0] // 2
    out = x.new_empty(rows, mlp)
    block_n, block_k, warps, stages = GEGLU
    _geglu[(triton.cdiv(rows, BLOCK_M), mlp // block_n)](
        x, weight, out, rows, WIDTH=width, MLP=mlp,
        BLOCK_M=BLOCK_M, BLOCK_N=block_n, BLOCK_K=_step(width, block_k), num_warps=warps, num_stages=stages,
        **chained(),
    )  # fmt: skip
    return out


@triton.jit
def _parts(
    x, weight, parts, rows, columns,
    WIDTH: tl.constexpr, SPLITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    CHAIN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    mask = (row < rows)[:, None]
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    begin = tl.program_id(2) * (WIDTH // SPLITS)
    product = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    wait(CHAIN)
    for start in range(0, WIDTH // SPLITS, BLOCK_K):
        k = begin + start + tl.arange(0, BLOCK_K)
        tile = tl.load(x + row[:, None] * WIDTH + k[None, :], mask=mask, other=0.0)
        product = tl.dot(tile, tl.load(weight + column[None, :] * WIDTH + k[:, None]), product, input_precision="ieee")
    release(CHAIN)
    own = (tl.program_id(2) * rows + row[:, None]) * columns + column[None, :]
    tl.store(parts + own, product, mask=mask)


def linear_parts(x: Tensor, weight: Tensor) -> Tensor:
    """x (M, width) times weight (columns, width) as (parts, M, columns) float32: one product per part of the width.

    Without parts there would be too few tiles to occupy a GPU. `residual_norm` sums the parts, always in the same
    order.
    """
    rows, width = x.shape
    columns = weight.shape[0]
    splits, block_n, block_k, warps, stages = PARTS
    splits = splits if width % (splits * 16) == 0 else 1
    parts = torch.empty(splits, rows, columns, dtype=torch.float32, device=x.device)
    _parts[(triton.cdiv(rows, BLOCK_M), columns // block_n, splits)](
        x, weight, parts, rows, columns, WIDTH=width, SPLITS=splits,
        BLOCK_M=BLOCK_M, BLOCK_N=block_n, BLOCK_K=_step(width // splits, block_k), num_warps=warps, num_stages=stages,
        **chained(),
    )  # fmt: skip
    return parts


def _step(width: int, most: int) -> int:
    """The largest step, up to `most`, that divides the inner dimension `width`."""
    return next(size for size in (256, 128, 64, 32, 16) if size <= most and width % size == 0)
