"""The weights of a `Pi0` in the layout of `FastNetwork`: projections that share an input are joined into one matrix.

The model's own parameters become views of those matrices, so that nothing is stored twice, the state dict keeps its
names and shapes, and updating a parameter in place changes the joined matrix too.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from rlinf_isaac.pi0 import siglip
from rlinf_isaac.pi0.gemma import AdaptiveRMSNorm, Gemma, GemmaLayer, RMSNorm


class GemmaWeights(NamedTuple):
    """The four matrices of one layer, each (outputs, inputs)."""

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


class VisionWeights(NamedTuple):
    """Weight and bias of each part of one layer of the vision tower. Those of the norms are float32."""

    norm1: tuple[Tensor, Tensor]
    qkv: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]
    norm2: tuple[Tensor, Tensor]
    fc1: tuple[Tensor, Tensor]
    fc2: tuple[Tensor, Tensor]


class Norm(NamedTuple):
    """The parameters of an RMSNorm: its result is multiplied by `scale` and `shift` is added.

    `gate` multiplies the update of the residual that follows the norm. Each is (width,) float32; a norm that is not
    adaptive has only `scale`.
    """

    scale: Tensor
    shift: Tensor | None = None
    gate: Tensor | None = None


def gemma_weights(gemma: Gemma) -> list[GemmaWeights]:
    """Joined weights of every layer."""
    weights = []
    for layer in cast("list[GemmaLayer]", list(gemma.layers)):
        attention, mlp = layer.self_attn, layer.mlp
        weights.append(
            GemmaWeights(
                joined(attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight),
                attention.o_proj.weight.detach(),
                joined(mlp.gate_proj.weight, mlp.up_proj.weight),
                mlp.down_proj.weight.detach(),
            )
        )
    return weights


def vision_weights(tower: siglip.VisionTransformer) -> list[VisionWeights]:
    """Joined weights of every layer."""
    weights = []
    for layer in cast("list[siglip.EncoderLayer]", list(tower.encoder.layers)):
        projections = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        qkv = joined(*(linear.weight for linear in projections)), joined(*(linear.bias for linear in projections))
        out, (fc1, fc2) = layer.self_attn.out_proj, (layer.mlp.fc1, layer.mlp.fc2)
        weights.append(
            VisionWeights(
                layer_norm(layer.layer_norm1),
                qkv,
                _linear(out),
                layer_norm(layer.layer_norm2),
                _linear(fc1),
                _linear(fc2),
            )
        )
    return weights


def layer_norm(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift of a LayerNorm, float32."""
    return norm.weight.detach().float(), norm.bias.detach().float()


def norms(gemma: Gemma, conditions: Tensor | None) -> list[list[Norm]]:
    """For each condition, the norms of a transformer in order of execution: two per layer, then the final one.

    `conditions` (K, width) belong to K denoising steps. If None, the norms are not adaptive and K is 1.
    """
    modules = [norm for layer in gemma.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    modules.append(gemma.norm)
    if conditions is None:
        return [[Norm(1.0 + cast(RMSNorm, module).weight.detach().float()) for module in modules]]
    parts = [_adaptive(cast(AdaptiveRMSNorm, module), conditions) for module in modules]
    return [
        [Norm(*(parameter[step].contiguous() for parameter in norm)) for norm in parts]
        for step in range(len(conditions))
    ]


def _adaptive(norm: AdaptiveRMSNorm, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale, shift, gate = norm.dense(conditions.to(norm.dense.weight.dtype)).detach().float().chunk(3, dim=-1)
    return 1.0 + scale, shift, gate


@torch.no_grad()
def joined(*parts: Tensor) -> Tensor:
    """Concatenates the parameters along their rows and makes them views of the result.

    If they are adjacent views of one tensor already, nothing is copied.
    """
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
