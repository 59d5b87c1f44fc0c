"""The weights of a `Pi0` in the layout of `FastNetwork`: projections that share an input are joined into one matrix.

The model's own parameters become views of those matrices, so that nothing is stored twice, the state dict keeps its
names and shapes, and updating a parameter in place changes the joined matrix too. Matrices with adapters (`pi0.lora`)
are the exception: the sum of weight and adapter is a copy, which `merge_adapters` renews.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from rlinf_isaac.pi0 import siglip
from rlinf_isaac.pi0.gemma import AdaptiveRMSNorm, Gemma, GemmaLayer, RMSNorm
from rlinf_isaac.pi0.lora import LoraLinear


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
    """Joined weights of every layer. Where one of them has an adapter, the matrix is memory of its own."""
    return [GemmaWeights(*(_matrix(linears) for linears in _projections(layer))) for layer in gemma.layers]


def merge_adapters(gemma: Gemma, weights: list[GemmaWeights]) -> None:
    """Computes the matrices of `gemma_weights` that contain adapters again, in place."""
    for layer, matrices in zip(gemma.layers, weights, strict=True):
        for linears, matrix in zip(_projections(layer), matrices, strict=True):
            if _adapted(linears):
                _merge(linears, matrix)


def _projections(layer: nn.Module) -> tuple[tuple[nn.Linear, ...], ...]:
    """The linear layers of a `GemmaLayer`, in the order of `GemmaWeights`."""
    attention, mlp = cast(GemmaLayer, layer).self_attn, cast(GemmaLayer, layer).mlp
    return (
        (attention.q_proj, attention.k_proj, attention.v_proj),
        (attention.o_proj,),
        (mlp.gate_proj, mlp.up_proj),
        (mlp.down_proj,),
    )


def _matrix(linears: tuple[nn.Linear, ...]) -> Tensor:
    if not _adapted(linears):
        return joined(*(linear.weight for linear in linears))
    matrix = linears[0].weight.new_empty(sum(linear.out_features for linear in linears), linears[0].in_features)
    _merge(linears, matrix)
    return matrix


def _adapted(linears: tuple[nn.Linear, ...]) -> bool:
    return any(isinstance(linear, LoraLinear) for linear in linears)


@torch.no_grad()
def _merge(linears: tuple[nn.Linear, ...], matrix: Tensor) -> None:
    """Writes the weights into `matrix`, with adapters added in float32."""
    for linear, rows in zip(linears, matrix.split([linear.out_features for linear in linears]), strict=True):
        weight = linear.weight
        if isinstance(linear, LoraLinear):
            weight = torch.addmm(weight.float(), linear.lora_B.float(), linear.lora_A.float(), alpha=linear.scale)
            if matrix.dtype == torch.bfloat16:
                weight = _dithered(weight)
        rows.copy_(weight)


def _dithered(x: Tensor) -> Tensor:
    """Rounds float32 numbers to ones that bfloat16 has, up or down at random; those it has already stay.

    Nearest rounding would undo every change by less than half of a bfloat16 step, and adapters change most weights by
    less. Here the expected value is right. Equal shapes get equal random numbers, so equal weights give equal results.
    """
    generator = torch.Generator(device=x.device).manual_seed(0)
    noise = torch.randint(0, 1 << 16, x.shape, dtype=torch.int32, device=x.device, generator=generator)
    # bfloat16 is the upper half of float32. A carry out of the lower half makes the number larger in magnitude.
    return ((x.view(torch.int32) + noise) & -(1 << 16)).view(torch.float32)


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


@torch.no_grad()
def copy_changed(source: Any, target: Any) -> None:
    """Copies the tensors in nested tuples and lists, except for those that are the same memory in both."""
    if isinstance(source, Tensor):
        if source.data_ptr() != target.data_ptr():
            target.copy_(source)
    elif source is not None:
        for each in zip(source, target, strict=True):
            copy_changed(*each)
