"""Attention over a key-value cache, in one Triton kernel that computes its mask from token indices."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlinf_isaac.pi0.fast.rows import chained, release, wait

MASKED = tl.constexpr(-1.0e30)
"""Score of a masked key. It is finite, so that a block in which a query sees no key gets weight 0, not NaN, when it is
combined with another block."""


FEW = (16, 64, 5, 8, 3)
MANY = (64, 32, 1, 4, 3)
"""Rows and keys per block, splits of the keys, warps, stages: for one observation's suffix, and for more rows. These
were the fastest of 13 to 18 settings tried on an H200."""


@triton.jit
def _attention(
    queries, keys, values, lengths, out, partial, partial_max, partial_sum, arrived,
    query_stride, pair_stride, tokens, context, prefix, scale,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, STATE_ALONE: tl.constexpr,
    SPLITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CHAIN: tl.constexpr,
):  # fmt: skip
    block, pair, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch, kv_head = pair // KV_HEADS, pair % KV_HEADS
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    row_inside = row < tokens * GROUP
    token, head = row // GROUP, kv_head * GROUP + row % GROUP
    lane = tl.arange(0, HEAD_DIM)
    wait(CHAIN)
    length = tl.load(lengths + batch)
    place = (batch * tokens + token).to(tl.int64)
    query = tl.load(
        queries + place[:, None] * query_stride + head[:, None] * HEAD_DIM + lane[None, :],
        mask=row_inside[:, None],
        other=0.0,
    )
    top = tl.full([BLOCK_M], MASKED, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    mixed = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    share = tl.cdiv(tl.cdiv(context, BLOCK_N), SPLITS) * BLOCK_N
    base = pair.to(tl.int64) * pair_stride
    for start in range(split * share, tl.minimum((split + 1) * share, context), BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        inside = key < context
        at = base + key * HEAD_DIM
        k = tl.load(keys + at[None, :] + lane[:, None], mask=inside[None, :], other=0.0)
        scores = tl.dot(query, k, input_precision="ieee") * scale
        seen = inside & ((key < length) | (key >= prefix))
        visible = seen[None, :]
        if STATE_ALONE:  # the first suffix token, pi0's state, sees the prefix and itself
            visible = visible & ((token[:, None] > 0) | (key[None, :] <= prefix))
        scores = tl.where(visible, scores, MASKED)
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weights, 1)
        v = tl.load(values + at[:, None] + lane[None, :], mask=inside[:, None], other=0.0)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        top = higher

    release(CHAIN)
    if SPLITS > 1:
        # Every split stores its partial result. The last one to finish adds them up in a fixed order, so that the sum
        # is always rounded in the same way.
        slot = pair * tl.num_programs(0) + block
        mine = (slot * SPLITS + split) * BLOCK_M + tl.arange(0, BLOCK_M)
        tl.store(partial + mine[:, None] * HEAD_DIM + lane[None, :], mixed)
        tl.store(partial_max + mine, top)
        tl.store(partial_sum + mine, total)
        tl.debug_barrier()
        if tl.atomic_add(arrived + slot, 1, sem="acq_rel") < SPLITS - 1:
            return
        tl.store(arrived + slot, 0)
        top = tl.full([BLOCK_M], MASKED, tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
        mixed = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
        for other in tl.static_range(SPLITS):
            theirs = (slot * SPLITS + other) * BLOCK_M + tl.arange(0, BLOCK_M)
            their_top = tl.load(partial_max + theirs)
            higher = tl.maximum(top, their_top)
            shrink, grow = tl.exp2(top - higher), tl.exp2(their_top - higher)
            total = total * shrink + tl.load(partial_sum + theirs) * grow
            part = tl.load(partial + theirs[:, None] * HEAD_DIM + lane[None, :])
            mixed = mixed * shrink[:, None] + part * grow[:, None]
            top = higher
    mixed = mixed / total[:, None]
    tl.store(
        out + (place[:, None] * (KV_HEADS * GROUP) + head[:, None]) * HEAD_DIM + lane[None, :],
        mixed.to(out.dtype.element_ty),
        mask=row_inside[:, None],
    )


def attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    *,
    heads: int,
    prefix: int,
    state_alone: bool = False,
) -> Tensor:
    """Grouped-query attention. Returns (B * T, heads * D).

    Args:
        queries: (B * T, heads * D), rotated. Rows need not be adjacent in memory.
        keys, values: (B, kv_heads, context, D), a cache or its first part.
        lengths: (B,) int64, the number of valid prefix tokens. Queries see that many tokens from the start of the
            context, and all tokens from position `prefix` on.
        heads: number of query heads.
        prefix: number of prefix tokens in the context, including invalid ones.
        state_alone: the queries are the suffix, and its first token sees no other suffix token.
    """
    batch, kv_heads, context, head_dim = keys.shape
    tokens = queries.shape[0] // batch
    out = queries.new_empty(queries.shape[0], heads * head_dim)
    rows = tokens * heads // kv_heads
    few = rows * batch * kv_heads <= 1024  # one observation's suffix: too few rows to fill a GPU, so keys are split
    block_m, block_n, splits, warps, stages = FEW if few else MANY
    splits = min(splits, triton.cdiv(context, block_n))
    blocks, pairs = triton.cdiv(rows, block_m), batch * kv_heads
    scratch: list[Tensor | None] = [None] * 4
    if splits > 1:
        lines = blocks * pairs * splits * block_m
        scratch = [
            torch.empty(lines, head_dim, dtype=torch.float32, device=keys.device),
            torch.empty(lines, dtype=torch.float32, device=keys.device),
            torch.empty(lines, dtype=torch.float32, device=keys.device),
            arrivals(keys.device),
        ]
    _attention[(blocks, pairs, splits)](
        queries, keys, values, lengths, out, *scratch,
        queries.stride(0), keys.stride(1), tokens, context, prefix, head_dim**-0.5 * 1.4426950408889634,
        KV_HEADS=kv_heads, GROUP=heads // kv_heads, HEAD_DIM=head_dim, STATE_ALONE=state_alone,
        SPLITS=splits, BLOCK_M=block_m, BLOCK_N=block_n, num_warps=warps, num_stages=stages, **chained(few),
    )  # fmt: skip
    return out


_ARRIVALS: dict[torch.device, Tensor] = {}


def arrivals(device: torch.device) -> Tensor:
    """4096 counters that are zero between kernels: the last block that increments a counter sets it back to zero."""
    if device not in _ARRIVALS:
        _ARRIVALS[device] = torch.zeros(4096, dtype=torch.int32, device=device)
    return _ARRIVALS[device]
