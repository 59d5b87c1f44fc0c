"""The weights of a `Pi0` as the fast path reads them: projections that share an input are one matrix.

The model's own parameters become views into those matrices: nothing is stored twice, names and shapes of the state dict
stay, and an update of a parameter in place is seen here.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from rlinf_isaac.pi0 import siglip
from rlinf_isaac.pi0.gemma import AdaptiveRMSNorm, Gemma, GemmaLayer, RMSNorm


class GemmaWeights(NamedTuple):
    """One layer: queries, keys and values; output; gate and up; down. Each (outputs, inputs)."""

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


class VisionWeights(NamedTuple):
    """One layer of the vision tower. The norms are float32."""

    norm1: tuple[Tensor, Tensor]
    qkv: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]
    norm2: tuple[Tensor, Tensor]
    fc1: tuple[Tensor, Tensor]
    fc2: tuple[Tensor, Tensor]


class Norm(NamedTuple):
    """An RMSNorm as factors: times `scale`, plus `shift`; `gate` is for the update of the residual behind it.

    Each is (width,) float32. A plain norm has only `scale`.
    """

    scale: Tensor
    shift: Tensor | None = None
    gate: Tensor | None = None


def gemma_weights(gemma: Gemma) -> list[GemmaWeights]:
    """Joined weights of every layer."""
    found = []
    for layer in cast("list[GemmaLayer]", list(gemma.layers)):
        attention, mlp = layer.self_attn, layer.mlp
        found.append(
            GemmaWeights(
                joined(attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight),
                attention.o_proj.weight.detach(),
                joined(mlp.gate_proj.weight, mlp.up_proj.weight),
                mlp.down_proj.weight.detach(),
            )
        )
    return found


def vision_weights(tower: siglip.VisionTransformer) -> list[VisionWeights]:
    """Joined weights of every layer."""
    found = []
    for layer in cast("list[siglip.EncoderLayer]", list(tower.encoder.layers)):
        projections = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        qkv = joined(*(each.weight for each in projections)), joined(*(each.bias for each in projections))
        out, (fc1, fc2) = layer.self_attn.out_proj, (layer.mlp.fc1, layer.mlp.fc2)
        found.append(
            VisionWeights(
                layer_norm(layer.layer_norm1),
                qkv,
                _linear(out),
                layer_norm(layer.layer_norm2),
                _linear(fc1),
                _linear(fc2),
            )
        )
    return found


def layer_norm(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift of a LayerNorm, float32."""
    return norm.weight.detach().float(), norm.bias.detach().float()


def norms(gemma: Gemma, conditions: Tensor | None) -> list[list[Norm]]:
    """The norms of a transformer in the order in which they are met, two per layer and the last, for each condition.

    `conditions` (K, width) are those of K denoising steps; without, the norms are plain and K is 1.
    """
    modules = [norm for layer in gemma.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    modules.append(gemma.norm)
    if conditions is None:
        return [[Norm(1.0 + cast(RMSNorm, module).weight.detach().float()) for module in modules]]
    parts = [_adaptive(cast(AdaptiveRMSNorm, module), conditions) for module in modules]
    return [[Norm(*(each[step].contiguous() for each in part)) for part in parts] for step in range(len(conditions))]


def _adaptive(norm: AdaptiveRMSNorm, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale, shift, gate = norm.dense(conditions.to(norm.dense.weight.dtype)).detach().float().chunk(3, dim=-1)
    return 1.0 + scale, shift, gate


@torch.no_grad()
def joined(*parts: Tensor) -> Tensor:
    """The parameters one below the other as one tensor, of which they become views; not copied if they are already."""
    sizes = [len(part) for part in parts]
    first, step = parts[0], parts[0].stride(0)
    starts = [first.storage_offset() + sum(sizes[:index]) * step for index in range(len(parts))]
    same = all(part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() for part in parts)
    if same and [part.storage_offset() for part in parts] == starts and all(p.is_contiguous() for p in parts):
        return first.detach().as_strided((sum(sizes), *first.shape[1:]), first.stride(), first.storage_offset())
    whole = torch.cat([part.detach() for part in parts])
    for part, view in zip(parts, whole.split(sizes), strict=True):
        part.data = view
    return whole


def _linear(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    return linear.weight.detach(), linear.bias.detach()
