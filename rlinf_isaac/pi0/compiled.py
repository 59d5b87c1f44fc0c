"""Switches for training large models: `torch.compile` of the transformer layers, and activation checkpointing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from rlinf_isaac.pi0.gemma import Gemma, GemmaLayer
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.siglip import Encoder


def compile_blocks(
    model: Pi0,
    backend: str = "inductor",
    *,
    inside_hooks: bool = False,
    stacks: Sequence[Encoder | Gemma] | None = None,
) -> Pi0:
    """Compiles every transformer layer in place, or only those of `stacks`, a part of ``model.stacks``.

    Layers of one kind share their code, so torch compiles three. The modules stay the same, and with them the names
    and shapes of the state dict. `backend` is a backend of `torch.compile`. With `inside_hooks` only the layer's
    `forward` is compiled and its hooks run outside of it: FSDP needs that, because its hooks gather the parameters
    before the layer runs.
    """
    stacks = model.stacks if stacks is None else stacks
    for gemma in (stack for stack in stacks if isinstance(stack, Gemma)):
        for layer in gemma.layers:
            attention = cast(GemmaLayer, layer).self_attn
            projections = attention.q_proj, attention.k_proj, attention.v_proj
            attention.joined = all(type(projection) is nn.Linear for projection in projections)
    for stack in stacks:
        for layer in stack.layers:
            if inside_hooks:
                layer.forward = torch.compile(layer.forward, backend=backend)
            else:
                layer.compile(backend=backend)
    return model


def checkpoint_activations(model: Pi0, on: bool) -> None:
    """Turns activation checkpointing of every layer on or off: whether the backward pass computes activations again."""
    for stack in model.stacks:
        stack.checkpointing = on


def recompute_products(model: Pi0, on: bool) -> None:
    """Sets whether the backward pass computes the element-wise part of feed-forward blocks again (compiled layers)."""
    for stack in model.stacks:
        for layer in stack.layers:
            layer.mlp.recompute = on  # type: ignore[union-attr]
