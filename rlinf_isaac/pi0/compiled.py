"""Training of large models: `torch.compile` of the blocks that all the time goes into, activation checkpointing."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from rlinf_isaac.pi0.gemma import GemmaLayer
from rlinf_isaac.pi0.model import Pi0


def compile_blocks(model: Pi0, backend: str = "inductor", *, inside_hooks: bool = False) -> Pi0:
    """Compiles every transformer layer in place. Layers of one kind share their code, so that three are compiled.

    Names and shapes of the state dict stay: the modules are the same. `backend` is one of `torch.compile`. With
    `inside_hooks` only what a layer computes is compiled, for hooks such as FSDP's, which gather its parameters first.
    """
    for gemma in (model.vlm.language_model, model.expert):
        for layer in gemma.layers:
            attention = cast(GemmaLayer, layer).self_attn
            projections = attention.q_proj, attention.k_proj, attention.v_proj
            attention.joined = all(type(each) is nn.Linear for each in projections)
    for stack in model.stacks:
        for layer in stack.layers:
            if inside_hooks:
                layer.forward = torch.compile(layer.forward, backend=backend)
            else:
                layer.compile(backend=backend)
    return model


def checkpoint_activations(model: Pi0, on: bool) -> None:
    """Whether training keeps what happens inside the layers for their gradients, or computes it again."""
    for stack in model.stacks:
        stack.checkpointing = on


def recompute_products(model: Pi0, on: bool) -> None:
    """Whether compiled layers compute the element-wise part of feed-forward blocks again instead of keeping it."""
    for stack in model.stacks:
        for layer in stack.layers:
            layer.mlp.recompute = on  # type: ignore[union-attr]
