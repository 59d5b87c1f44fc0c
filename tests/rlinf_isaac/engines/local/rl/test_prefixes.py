"""Prefixes come back as they were kept, wherever their rows lie. The copies of a GPU are those of test_on_gpu.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlinf_isaac.engines.local.rl import prefixes
from rlinf_isaac.engines.local.rl.prefixes import PrefixStore
from rlinf_isaac.pi0.kept_prefix import KeptPrefix

LAYERS, HEADS, TOKENS, DIM, WIDTH = 3, 2, 5, 4, 6


def make_prefix(rows: int, seed: int, tokens: int = TOKENS) -> KeptPrefix:
    generator = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(LAYERS, rows, HEADS, tokens, DIM, generator=generator) for _ in range(2))
    lengths = torch.randint(2, TOKENS + 1, (rows, 1), generator=generator)
    return KeptPrefix(keys, values, torch.arange(tokens) < lengths, torch.randn(rows, WIDTH, generator=generator))


def make_store(near: int, rows: int = 12) -> PrefixStore:
    shape = (near, LAYERS, 2, HEADS, TOKENS, DIM)
    valid, mean = torch.zeros(rows, TOKENS, dtype=torch.bool), torch.zeros(rows, WIDTH)
    return PrefixStore(torch.full(shape, torch.nan), valid, mean)


@pytest.mark.parametrize("near", [12, 6, 0], ids=["all on the device", "some", "none"])
def test_rows_come_back_in_any_order_and_however_they_are_fetched(near, monkeypatch):
    monkeypatch.setattr(prefixes, "HOST_BLOCK", 2 * LAYERS * 2 * HEADS * TOKENS * DIM * 4)  # two rows
    store, calls = make_store(near), [make_prefix(4, seed) for seed in range(3)]
    for number, call in enumerate(calls):
        store.write(4 * number, call, None, padded=True)
    whole = KeptPrefix(
        *(torch.cat(each, dim) for each, dim in zip(zip(*calls, strict=True), (1, 1, 0, 0), strict=True))
    )
    orders = [np.array(rows) for rows in ([7, 1, 10], [5, 4, 3], [0, 11, 0], [8, 8, 2])]
    for rows, following in zip(orders, [*orders[1:], None], strict=True):
        for found, expected in zip(store.read(rows, following), whole.rows(torch.from_numpy(rows)), strict=True):
            assert torch.equal(found, expected)
    # Rows that were announced, and were overwritten before they were read.
    store.read(orders[0], orders[1])
    store.write(4, calls[0], None, padded=True)
    expected = calls[0].rows(torch.tensor([1, 0]))
    assert torch.equal(store.read(orders[1]).keys[:, :2], expected.keys)
    assert store.host_bytes == (12 - near) * 2 * whole.keys[:, 0].numel() * 4


def test_only_chosen_slots_are_kept_and_shorter_prefixes_are_filled_up():
    store = make_store(12)
    long, short = make_prefix(3, 0, TOKENS + 2), make_prefix(3, 1, TOKENS - 2)
    store.write(0, long, torch.tensor([2, 0]), padded=False)
    assert not store.padded
    store.write(2, short, None, padded=True)
    assert store.padded
    kept = store.read(np.arange(5))
    assert torch.equal(kept.keys[:, :2], long.keys[:, [2, 0], :, :TOKENS])
    assert torch.equal(kept.values[:, 2:, :, : TOKENS - 2], short.values)
    assert not kept.valid[2:, TOKENS - 2 :].any()
    assert torch.isfinite(kept.keys).all()
