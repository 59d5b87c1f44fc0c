"""Every kernel against the same in torch, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rlinf_isaac.pi0.fast import rows, skinny
from rlinf_isaac.pi0.fast.attention import arrivals, attention

WIDTH, MLP, HEADS, KV_HEADS, HEAD_DIM = 64, 96, 4, 2, 32


class Random:
    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.device, self.dtype = device, dtype

    def __call__(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device, dtype or self.dtype)

    def close(self, found: Tensor, wanted: Tensor) -> None:
        assert found.isfinite().all()
        error = (found.double() - wanted).norm() / wanted.norm()
        assert error < (1e-6 if self.dtype == torch.float32 else 8e-3)


@pytest.fixture
def random(device, dtype) -> Random:
    return Random(device, dtype)


@pytest.mark.parametrize("parts", [0, 1, 3])
@pytest.mark.parametrize("centre", [False, True])
def test_residual_norm(random, parts: int, centre: bool) -> None:
    x, scale, shift, gate = random(5, 72), *(random(72, dtype=torch.float32) for _ in range(3))
    update = None if parts == 0 else random(5, 72) if parts == 1 else random(parts, 5, 72, dtype=torch.float32)
    added = 0 if update is None else (update if parts == 1 else update.sum(0)).double() * gate.double()
    total = (x.double() + added).to(random.dtype)
    found = rows.residual_norm(x, scale, shift, update, gate, centre=centre)
    random.close(x, total.double())
    if centre:
        wanted = F.layer_norm(total.double(), (72,), scale.double(), shift.double(), 1e-6)
    else:
        wanted = F.rms_norm(total.double(), (72,), scale.double(), 1e-6) + shift.double()
    random.close(found, wanted)


def test_geglu(random) -> None:
    gate_up = random(7, 2 * MLP)
    gate, up = gate_up.double().chunk(2, 1)
    random.close(rows.geglu(gate_up), F.gelu(gate, approximate="tanh") * up)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    cos, sin = cos.double()[:, None], sin.double()[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


@pytest.mark.parametrize("fused", [False, True], ids=["rotate_and_keep", "linear_qkv"])
def test_projections_go_to_their_places(random, fused: bool) -> None:
    batch, tokens, offset = 2, 5, 9
    angles = random(batch * tokens, HEAD_DIM // 2, dtype=torch.float32)
    cos, sin = angles.cos(), angles.sin()
    x, weight = random(batch * tokens, WIDTH), random((HEADS + 2 * KV_HEADS) * HEAD_DIM, WIDTH) * WIDTH**-0.5
    keys, values = (random(batch, KV_HEADS, offset + tokens, HEAD_DIM) for _ in range(2))
    before = keys.clone(), values.clone()
    if fused:
        queries = skinny.linear_qkv(x, weight, cos, sin, keys, values, heads=HEADS, offset=offset)
    else:
        queries = rows.rotate_and_keep(F.linear(x, weight), cos, sin, keys, values, offset, HEADS)
    projected = (x.double() @ weight.double().T).view(batch * tokens, -1, HEAD_DIM)
    random.close(queries, rotated(projected[:, :HEADS], cos, sin).flatten(1))
    own_keys = rotated(projected[:, HEADS : HEADS + KV_HEADS], cos, sin)
    for cache, was, own in ((keys, before[0], own_keys), (values, before[1], projected[:, HEADS + KV_HEADS :])):
        assert torch.equal(cache[:, :, :offset], was[:, :, :offset])
        random.close(cache[:, :, offset:], own.view(batch, tokens, KV_HEADS, HEAD_DIM).transpose(1, 2))


def test_keys_and_values_alone(random) -> None:
    keys, values = (random(1, KV_HEADS, 6, HEAD_DIM) for _ in range(2))
    projected = random(6, 2 * KV_HEADS * HEAD_DIM)
    still = torch.ones(6, HEAD_DIM // 2, device=random.device)
    rows.rotate_and_keep(projected, still, torch.zeros_like(still), keys, values, 0, heads=0)
    wanted = projected.view(6, 2, KV_HEADS, HEAD_DIM).permute(1, 2, 0, 3)
    assert torch.equal(keys[0], wanted[0])
    assert torch.equal(values[0], wanted[1])


@pytest.mark.parametrize("state_alone", [False, True])
@pytest.mark.parametrize(("batch", "tokens", "prefix"), [(2, 5, 9), (1, 6, 700), (3, 90, 32)])
def test_attention(random, batch: int, tokens: int, prefix: int, state_alone: bool) -> None:
    """Short; with so many keys that they are split; with so many queries that they are not."""
    context = prefix + tokens
    queries = random(batch * tokens, (HEADS + 1) * HEAD_DIM)[:, : HEADS * HEAD_DIM]  # rows further apart than long
    keys, values = (random(batch, KV_HEADS, context, HEAD_DIM) for _ in range(2))
    lengths = torch.arange(1, batch + 1, device=random.device) * (prefix // (batch + 1))
    found = attention(queries, keys, values, lengths, heads=HEADS, prefix=prefix, state_alone=state_alone)
    key = torch.arange(context, device=random.device)
    visible = ((key < lengths[:, None]) | (key >= prefix))[:, None].repeat(1, tokens, 1)
    if state_alone:
        visible[:, 0, prefix + 1 :] = False
    heads = queries.double().reshape(batch, tokens, HEADS, HEAD_DIM).transpose(1, 2)
    wanted = F.scaled_dot_product_attention(
        heads, keys.double(), values.double(), attn_mask=visible[:, None], enable_gqa=True
    )
    random.close(found, wanted.transpose(1, 2).reshape(batch * tokens, -1))
    assert not arrivals(keys.device).any()


@pytest.mark.parametrize("count", [51, 70])
def test_linear_geglu(random, count: int) -> None:
    x, weight = random(count, WIDTH), random(2 * MLP, WIDTH) * WIDTH**-0.5
    gate, up = (x.double() @ weight.double().T).chunk(2, 1)
    random.close(skinny.linear_geglu(x, weight), F.gelu(gate, approximate="tanh") * up)


@pytest.mark.parametrize("width", [WIDTH, 512, 40 * 16])
def test_linear_parts(random, width: int) -> None:
    x, weight = random(70, width), random(MLP, width) * width**-0.5
    random.close(skinny.linear_parts(x, weight).sum(0), x.double() @ weight.double().T)
