"""Gemma transformer with OpenPI's parameter names: the VLM's language model and the action expert.

pi0 is one attention over two streams of tokens with separate weights: the prefix (images, prompt) in the language
model and the suffix (state, noisy actions) in the expert. The prefix never attends to the suffix, so it is run first,
on its own, and leaves its keys and values per layer (`Gemma.keys_and_values`); the expert then attends to them and to
itself. Training, sampling and RL share this one path, and nothing of the prefix is computed twice.

Source of the formulas: OpenPI ``models_pytorch/gemma_pytorch.py`` and the Gemma of its patched transformers 4.53.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlinf_isaac.config.schema import GemmaConfig
from rlinf_isaac.pi0.checkpointing import run_layer

MASKED = -2.3819763e38
"""Added to the attention logits of masked pairs (big_vision's value). Finite, so that no row can become NaN."""

ROPE_BASE = 10_000.0
NORM_EPSILON = 1e-6


class Rope(NamedTuple):
    """Cosines and sines of rotary position embeddings, (B, T, 1, head_dim / 2), for some positions."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, positions: Tensor, head_dim: int, dtype: torch.dtype) -> Rope:
        """Tables for integer `positions` (B, T), computed in float32 and rounded to `dtype`."""
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
        angles = positions[:, :, None, None].float() * (1.0 / ROPE_BASE**exponents)
        return cls(angles.cos().to(dtype), angles.sin().to(dtype))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotates queries or keys (B, T, heads, head_dim); pairs are (x[i], x[i + head_dim / 2]), as Hugging Face's."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * self.cos - second * self.sin, second * self.cos + first * self.sin], dim=-1)


class KeysValues(NamedTuple):
    """Keys (rotated) and values of one layer, each (B, kv_heads, T, head_dim)."""

    keys: Tensor
    values: Tensor


def masked_bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive attention mask of a boolean one: 0 where `visible`, `MASKED` elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, MASKED)


class RMSNorm(nn.Module):
    """Gemma's RMSNorm: x / rms(x) * (1 + weight), in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, None]:
        """(normalised x, None): a plain norm has no gate. `condition` is ignored."""
        scale = 1.0 + self.weight.float()
        return F.rms_norm(x.float(), self.weight.shape, scale, NORM_EPSILON).to(x.dtype), None


class AdaptiveRMSNorm(nn.Module):
    """pi0.5's adaRMS: scale, shift and the gate of the residual come from the time embedding."""

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(condition_width, 3 * width)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, width), condition (B, condition_width) -> (normalised x, gate (B, 1, width))."""
        modulation = self.dense(condition.to(self.dense.weight.dtype))[:, None]
        scale, shift, gate = modulation.chunk(3, dim=-1)
        normed = F.rms_norm(x.float(), x.shape[-1:], eps=NORM_EPSILON)
        return (normed * (1.0 + scale.float()) + shift.float()).to(x.dtype), gate.to(x.dtype)


def add_residual(x: Tensor, update: Tensor, gate: Tensor | None) -> Tensor:
    """x + update, the update multiplied by the gate of an adaptive norm."""
    return x + update if gate is None else torch.addcmul(x, update, gate)


class Attention(nn.Module):
    """Grouped-query attention without biases.

    The query heads that share a key head are laid side by side as if they were tokens: (B, kv_heads, T * group,
    head_dim). So keys and values are never repeated, and fused attention kernels take the mask.

    Attributes:
        joined: multiply with the three matrices of queries, keys and values as with one. That of keys alone is too
            small to occupy a GPU. Only for matrices without adapters.
    """

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.head_dim, self.kv_heads = config.head_dim, config.num_kv_heads
        self.joined = False
        query_width, key_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, query_width, bias=False)
        self.k_proj = nn.Linear(config.width, key_width, bias=False)
        self.v_proj = nn.Linear(config.width, key_width, bias=False)
        self.o_proj = nn.Linear(query_width, config.width, bias=False)

    def keys_values(self, x: Tensor, rope: Rope) -> KeysValues:
        """Keys and values of tokens x (B, T, width)."""
        keys = rope.rotate(self.k_proj(x).unflatten(-1, (-1, self.head_dim)))
        values = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        return KeysValues(keys.transpose(1, 2), values.transpose(1, 2))

    def project(self, x: Tensor, rope: Rope) -> tuple[Tensor, KeysValues]:
        """Queries (B, T, heads, head_dim; rotated) of tokens x (B, T, width), and their keys and values."""
        if not self.joined:
            own = self.keys_values(x, rope)
            return rope.rotate(self.q_proj(x).unflatten(-1, (-1, self.head_dim))), own
        together = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        heads = F.linear(x, together).unflatten(-1, (-1, self.head_dim))
        queries, keys, values = heads.split([heads.shape[2] - 2 * self.kv_heads, self.kv_heads, self.kv_heads], dim=2)
        return rope.rotate(queries), KeysValues(rope.rotate(keys).transpose(1, 2), values.transpose(1, 2))

    def forward(self, queries: Tensor, context: KeysValues, bias: Tensor | None) -> Tensor:
        """What the queries (B, T, heads, head_dim) find in `context`, as tokens (B, T, width).

        `bias` broadcasts to (B, kv_heads, T * group, context T).
        """
        batch, length, _, _ = queries.shape
        grouped = queries.view(batch, length, self.kv_heads, -1, self.head_dim).transpose(1, 2).flatten(2, 3)
        attended = F.scaled_dot_product_attention(grouped, context.keys, context.values, attn_mask=bias)
        return self.o_proj(attended.unflatten(2, (length, -1)).transpose(1, 2).flatten(2))


class GatedMLP(nn.Module):
    """Gemma's GeGLU feed-forward block, tanh approximation of GELU.

    Attributes:
        recompute: in compiled layers, compute the product of gate and projection a second time in the backward pass
            instead of keeping it: a third less of the block is kept.
    """

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.recompute = False
        self.gate_proj = nn.Linear(config.width, config.mlp_dim, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_dim, bias=False)
        self.down_proj = nn.Linear(config.mlp_dim, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, T, width) -> the same shape."""
        return self.down_proj(run_layer(_gated, self.gate_proj(x), self.up_proj(x), checkpointing=self.recompute))


def _gated(gate: Tensor, projected: Tensor) -> Tensor:
    return F.gelu(gate, approximate="tanh") * projected


class GemmaLayer(nn.Module):
    """Attention and feed-forward block, each behind a norm and inside a residual."""

    def __init__(self, config: GemmaConfig, condition_width: int | None = None) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = GatedMLP(config)
        self.input_layernorm = _norm(config.width, condition_width)
        self.post_attention_layernorm = _norm(config.width, condition_width)

    def forward(
        self,
        x: Tensor,
        rope: Rope,
        bias: Tensor | None,
        past: KeysValues | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """One layer over x (B, T, width). Returns the new x, and the layer's own keys and values (without `past`)."""
        normed, gate = self.input_layernorm(x, condition)
        queries, own = self.self_attn.project(normed, rope)
        context = own if past is None else KeysValues(*(torch.cat(pair, dim=2) for pair in zip(past, own, strict=True)))
        x = add_residual(x, self.self_attn(queries, context, bias), gate)
        normed, gate = self.post_attention_layernorm(x, condition)
        return add_residual(x, self.mlp(normed), gate), own

    def keys_values(self, x: Tensor, rope: Rope) -> KeysValues:
        """The layer's own keys and values of x alone."""
        return self.self_attn.keys_values(self.input_layernorm(x)[0], rope)


class Gemma(nn.Module):
    """A stack of layers. With `vocab_size` it embeds tokens; with `condition_width` its norms are adaptive."""

    def __init__(self, config: GemmaConfig, vocab_size: int | None = None, condition_width: int | None = None) -> None:
        super().__init__()
        self.checkpointing = False
        if vocab_size is not None:
            self.embed_tokens = nn.Embedding(vocab_size, config.width)
        self.layers = nn.ModuleList(GemmaLayer(config, condition_width) for _ in range(config.depth))
        self.norm = _norm(config.width, condition_width)

    def keys_and_values(self, x: Tensor, rope: Rope, bias: Tensor | None) -> list[KeysValues]:
        """Keys and values of every layer for tokens x (B, T, width).

        The last layer only projects them: its output is read by nobody, so it is not computed.
        """
        found = []
        for layer in self.layers[:-1]:
            x, own = run_layer(layer, x, rope, bias, checkpointing=self.checkpointing)
            found.append(own)
        found.append(cast(GemmaLayer, self.layers[-1]).keys_values(x, rope))
        return found

    def encode(self, x: Tensor, rope: Rope, bias: Tensor | None) -> tuple[list[KeysValues], Tensor]:
        """`keys_and_values`, and the normalised output (B, T, width) of the last layer as well."""
        found = []
        for layer in self.layers:
            x, own = run_layer(layer, x, rope, bias, checkpointing=self.checkpointing)
            found.append(own)
        return found, self.norm(x)[0]

    def forward(
        self, x: Tensor, rope: Rope, bias: Tensor | None, past: Sequence[KeysValues], condition: Tensor | None = None
    ) -> Tensor:
        """Tokens x (B, T, width) attend to `past` and to each other. Returns the normalised output (B, T, width)."""
        for layer, layer_past in zip(self.layers, past, strict=True):
            x, _ = run_layer(layer, x, rope, bias, layer_past, condition, checkpointing=self.checkpointing)
        return self.norm(x, condition)[0]


def _norm(width: int, condition_width: int | None) -> nn.Module:
    return RMSNorm(width) if condition_width is None else AdaptiveRMSNorm(width, condition_width)
